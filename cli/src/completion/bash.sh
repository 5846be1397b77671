# Completions of vc for bash.
_vc() {
    # Bash splits words at colons and equals signs too: put together what has no space between.
    local line=${COMP_LINE:0:COMP_POINT} words=() count=0 word i
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if ((i == 0)) || [[ -z $line || $line == [[:space:]]* ]]; then
            line=${line#"${line%%[![:space:]]*}"}
            words[count++]=
        fi
        # The last one as far as the cursor.
        ((i < COMP_CWORD)) || word=$line
        words[count - 1]+=$word
        line=${line#"$word"}
    done
    # As the shell will read it, without quotes.
    for ((i = 0; i < count; i++)); do
        words[i]=${words[i]//[\"\'\\]/}
    done

    COMPREPLY=()
    while IFS= read -r word; do
        COMPREPLY+=("$word")
    done < <(VARIABLE=bash PROGRAM -- "${words[@]}" 2>/dev/null)

    # What replaces the last part must not repeat those before it.
    local last=${words[count - 1]} breaks=${COMP_WORDBREAKS//[^:=]/}
    [[ -z $breaks ]] || last=${last%"${last##*[$breaks]}"}
    [[ -n $breaks ]] || last=
    COMPREPLY=("${COMPREPLY[@]#"$last"}")
    for word in "${COMPREPLY[@]}"; do
        case $word in
            *[:=/]) compopt -o nospace 2>/dev/null ;;
        esac
        # Bash quotes file names then.
        [[ ! -e $word ]] || compopt -o filenames 2>/dev/null
    done
}
complete -o nosort -F _vc vc 2>/dev/null || complete -F _vc vc
