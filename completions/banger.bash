# bash completion for banger: asks the programs, knows no command itself.

_banger() {
    local front word=$2 before=$3 line help kinds='' program='' depth shelf
    local state=${BANGER_STATE:-${XDG_STATE_HOME:-$HOME/.local/state}/banger}
    local -a typed list
    COMPREPLY=()
    front=$(type -P -- "${COMP_WORDS[0]}") || return
    typed=("${COMP_WORDS[@]:1:COMP_CWORD-1}")
    case "${typed[*]}" in
        help | help\ *) typed=("${typed[@]:1}") ;;
        ps | ps\ *) typed=(vm list "${typed[@]:1}") ;;
        vm\ workspace*) typed=("${typed[@]:1}") ;;
    esac
    [[ " ${typed[*]} " == *" -- "* ]] && return
    mapfile -t list < <("$front" --completion-words 2>/dev/null)

    # The longest run of words that names a program.
    for ((depth = ${#typed[@]}; depth > 0 && depth < 99; depth--)); do
        for line in "${list[@]}"; do
            [[ $line == "${typed[*]:0:depth}" ]] && program=$line && break 2
        done
    done
    if [[ ! $program ]]; then
        local start="${typed[*]}${typed:+ }"
        for line in "${list[@]}" ${typed:-help ps}; do
            [[ $line == "$start$word"* ]] || continue
            line=${line#"$start"} line=${line%% *}
            [[ " ${COMPREPLY[*]} " == *" $line "* ]] || COMPREPLY+=("$line")
        done
        return
    fi
    [[ ${COMP_WORDS[1]} == help ]] && return

    # What it takes it says itself, asked alone: with a word more it would run.
    program=banger-${program// /-}
    [[ -x ${front%/*}/$program ]] && program=${front%/*}/$program
    while IFS=$'\t' read -r line help; do
        case $line in
            @*" $before") kinds=${line% *} && COMPREPLY=() && break ;;
            @*" "*) ;;
            @*) kinds+=" $line" ;;
            *) [[ $word == -* && $line == "$word"* ]] && COMPREPLY+=("$line") ;;
        esac
    done < <("$program" --completion-words 2>/dev/null)
    [[ $word == -* ]] && return

    for line in $kinds; do
        case $line in
            @VM) shelf=vms ;;
            @IMAGE) shelf=images ;;
            @KERNEL) shelf=kernels ;;
            *)
                compopt -o filenames 2>/dev/null
                mapfile -t COMPREPLY < <(compgen -f -- "$word")
                continue
                ;;
        esac
        for line in "$state/$shelf/$word"*/; do
            [[ -d $line ]] && line=${line%/} && COMPREPLY+=("${line##*/}")
        done
    done
}

complete -F _banger banger
