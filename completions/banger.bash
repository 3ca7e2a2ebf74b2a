# bash completion for banger: asks the programs, knows no command itself.

_banger() {
    local front word=$2 before=$3 line help kinds='' program='' depth shelf spelled=''
    local state=${BANGER_STATE:-${XDG_STATE_HOME:-$HOME/.local/state}/banger}
    local -a typed list values=()
    COMPREPLY=()
    front=$(type -P -- "${COMP_WORDS[0]}") || return
    typed=("${COMP_WORDS[@]:1:COMP_CWORD-1}")
    case "${typed[*]}" in
        help | help\ *) typed=("${typed[@]:1}") ;;
        vm\ workspace*) typed=("${typed[@]:1}") ;;
    esac
    [[ " ${typed[*]} " == *" -- "* ]] && return
    mapfile -t list < <("$front" --completion-words 2>/dev/null)

    # What else may be typed stands behind the programs, with what it means.
    for depth in 2 1; do
        for line in "${list[@]}"; do
            [[ $typed && $line == "${typed[*]:0:depth}"$'\t'* ]] && spelled=${line#*$'\t'}
        done
        [[ $spelled ]] && typed=($spelled "${typed[@]:depth}") && break
    done

    # The longest run of words that names a program.
    for ((depth = ${#typed[@]}; depth > 0 && depth < 99; depth--)); do
        for line in "${list[@]}"; do
            [[ $line == "${typed[*]:0:depth}" ]] && program=$line && break 2
        done
    done
    if [[ ! $program ]]; then
        local start="${typed[*]}${typed:+ }"
        for line in "${list[@]}" ${typed:-help ps}; do
            [[ $line == "$start$word"* && $line != *$'\t'* ]] || continue
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
            =*" $before") values+=("${line%% *}") ;;
            @*" "* | =*" "*) ;;
            @*) kinds+=" $line" ;;
            *) [[ $word == -* && $line == "$word"* ]] && COMPREPLY+=("$line") ;;
        esac
    done < <("$program" --completion-words 2>/dev/null)
    if [[ ${values[*]} ]]; then
        COMPREPLY=()
        for line in "${values[@]#=}"; do
            [[ $line == "$word"* ]] && COMPREPLY+=("$line")
        done
        return
    fi
    [[ $word == -* ]] && return

    # The workspaces of a VM that stands on the line.
    if [[ $kinds == *@WORKSPACE* ]]; then
        program=banger-workspace-status
        [[ -x ${front%/*}/$program ]] && program=${front%/*}/$program
        for line in "${COMP_WORDS[@]:1}"; do
            [[ $line != */* && -d $state/vms/$line/workspaces ]] || continue
            mapfile -t values < <("$program" --places "$line" 2>/dev/null)
            break
        done
        for line in "${values[@]}"; do
            [[ $line == "$word"* ]] && COMPREPLY+=("$(printf %q "$line")")
        done
        return
    fi

    for line in $kinds; do
        case $line in
            @VM) shelf=vms ;;
            @IMAGE) shelf=images ;;
            @REFERENCE) shelf= ;;
            @KERNEL) shelf=kernels ;;
            @EXPORT) shelf=exports ;;
            *)
                compopt -o filenames 2>/dev/null
                mapfile -t COMPREPLY < <(compgen -f -- "$word")
                continue
                ;;
        esac
        for line in "$state/$shelf/$word"*/; do
            [[ $shelf && -d $line ]] && line=${line%/} && COMPREPLY+=("${line##*/}")
        done
        # What the catalogs have can be pulled.
        [[ $before == --image || ! $shelf ]] || continue
        program=banger-image-pull
        [[ -x ${front%/*}/$program ]] && program=${front%/*}/$program
        while read -r line; do
            [[ $line == "$word"* && " ${COMPREPLY[*]} " != *" $line "* ]] && COMPREPLY+=("$line")
        done < <("$program" --catalog-names 2>/dev/null)
    done
}

complete -F _banger banger
