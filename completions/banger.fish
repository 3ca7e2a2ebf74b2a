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
        case 'vm workspace*'
            set -e typed[1]
    end
    contains -- -- $typed; and return
    set -l list ($front --completion-words 2>/dev/null)

    # What else may be typed stands behind the programs, with what it means.
    for depth in 2 1
        test (count $typed) -ge $depth; or continue
        set -l spelled
        for line in $list
            set -l row (string split \t -- $line)
            test (count $row) -eq 2 -a "$row[1]" = "$typed[1..$depth]"; and set spelled (string split ' ' -- $row[2])
        end
        if set -q spelled[1]
            set typed $spelled $typed[(math $depth + 1)..-1]
            break
        end
    end
    set list (string match -v -- "*"\t"*" $list)

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
    set -l values
    for line in ($program --completion-words 2>/dev/null)
        switch $line
            case "@* $before"
                set kinds (string split -f 1 ' ' -- $line)
                set options
                break
            case "=* $before"
                set -a values (string replace -r '^=(.*) [^ ]*$' '$1' -- $line)
            case '@* *' '=* *'
            case '@*'
                set -a kinds $line
            case '*'
                set -a options $line
        end
    end
    if set -q values[1]
        printf '%s\n' $values
        return
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
            case @WORKSPACE
                # Of a VM that stands on the line.
                set -l status_program (path dirname $front)/banger-workspace-status
                test -x $status_program; or set status_program banger-workspace-status
                for name in (commandline -o)
                    string match -q '*/*' -- $name; and continue
                    if test -n "$name" -a -d "$state/vms/$name/workspaces"
                        $status_program --places $name 2>/dev/null
                        break
                    end
                end
            case @VM
                path basename $state/vms/*/
            case @IMAGE @REFERENCE
                test $kind = @IMAGE; and path basename $state/images/*/
                # What the catalogs have can be pulled.
                if test $kind = @REFERENCE -o "$before" = --image
                    set -l pull (path dirname $front)/banger-image-pull
                    test -x $pull; or set pull banger-image-pull
                    $pull --catalog-names 2>/dev/null
                end
            case @KERNEL
                path basename $state/kernels/*/
            case @EXPORT
                path basename $state/exports/*/
            case '*'
                __fish_complete_path $word
        end
    end
end

complete -c banger -f -a '(__banger_words)'
