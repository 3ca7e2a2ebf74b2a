# fish completion for banger: asks the programs, knows no command itself.

function __banger_words
    set -l typed (commandline -opc)
    set -l word (commandline -ct)
    set -l front (command -s $typed[1]); or return
    set -l before $typed[-1]
    set -e typed[1]
    set -l help no
    switch "$typed"
        case help 'help *'
            set help yes
            set -e typed[1]
        case ps 'ps *'
            set typed vm list $typed[2..-1]
        case 'vm workspace*'
            set -e typed[1]
    end
    contains -- -- $typed; and return
    set -l list ($front --completion-words 2>/dev/null)

    # The longest run of words that names a program.
    set -l program
    for depth in (seq (count $typed) -1 1)
        if contains -- "$typed[1..$depth]" $list
            set program (string join - banger $typed[1..$depth])
            break
        end
    end
    if test -z "$program"
        set -l start (string join ' ' -- $typed '')
        test -z "$typed"; and set start ''; and set -a list help ps
        for line in $list
            string match -q -- "$start*" $line
            and string split -f 1 ' ' -- (string sub -s (math 1 + (string length -- "$start")) -- $line)
        end | sort -u
        return
    end
    test $help = yes; and return

    # What it takes it says itself, asked alone: with a word more it would run.
    set -l beside (path dirname $front)/$program
    test -x $beside; and set program $beside
    set -l kinds
    set -l options
    for line in ($program --completion-words 2>/dev/null)
        switch $line
            case "@* $before"
                set kinds (string split -f 1 ' ' -- $line)
                set options
                break
            case '@* *'
            case '@*'
                set -a kinds $line
            case '*'
                set -a options $line
        end
    end
    if string match -q -- '-*' $word
        printf '%s\n' $options
        return
    end
    set -l state $HOME/.local/state/banger
    set -q XDG_STATE_HOME; and test -n "$XDG_STATE_HOME"; and set state $XDG_STATE_HOME/banger
    set -q BANGER_STATE; and test -n "$BANGER_STATE"; and set state $BANGER_STATE
    for kind in $kinds
        switch $kind
            case @VM
                path basename $state/vms/*/
            case @IMAGE
                path basename $state/images/*/
            case @KERNEL
                path basename $state/kernels/*/
            case '*'
                __fish_complete_path $word
        end
    end
end

complete -c banger -f -a '(__banger_words)'
