# Completes kvass in bash. Words that readline cuts at ':', '=' or '@' are joined again, because keys hold them; and what
# is offered is quoted, because a key may hold anything that a shell would obey.

# Sets REPLY to what the shell would make of one word, without running anything.
_kvass_unquoted() {
    local rest=$1 quote= character
    REPLY=
    case $rest in '~' | '~/'*) REPLY=$HOME rest=${rest#\~} ;; esac
    while [[ -n $rest ]]; do
        character=${rest:0:1} rest=${rest:1}
        case $quote$character in
            "'" | '"') quote=$character ;;
            "''" | '""') quote= ;;
            "\\" | '"\') REPLY+=${rest:0:1} rest=${rest:1} ;;
            *) REPLY+=$character ;;
        esac
    done
}

# Sets REPLY to a text as it stands in a command line, within the quotation mark that is open.
_kvass_quoted() {
    local text=$1 quote=$2 character
    if [[ -z $quote ]]; then
        printf -v REPLY %q "$text"
        return
    fi
    REPLY=
    while [[ -n $text ]]; do
        character=${text:0:1} text=${text:1}
        case $quote$character in
            "''") REPLY+="'\\''" ;;
            '""' | '"\' | '"$' | '"`') REPLY+="\\$character" ;;
            *) REPLY+=$character ;;
        esac
    done
}

_kvass() {
    local line=${COMP_LINE:0:COMP_POINT} words=() i word before quote= REPLY
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]} before=
        if [[ i -gt 0 && $line == [![:blank:]]* ]]; then
            before=${words[${#words[@]} - 1]}
            unset "words[${#words[@]} - 1]"
        fi
        line=${line#"${line%%[![:blank:]]*}"}
        [[ i -lt COMP_CWORD ]] || word=$line
        words+=("$before$word")
        line=${line:${#word}}
    done

    # Readline replaces $2; what stands before it in the same word stays, and so does a quotation mark.
    case $word in
        "'"* | '"'*) quote=${word:0:1} ;;
        *) word=$before$word before=${word%"$2"} ;;
    esac
    _kvass_unquoted "$before"
    before=$REPLY
    _kvass_unquoted "$quote$2"
    words[${#words[@]} - 1]=$before$REPLY
    for ((i = 0; i < ${#words[@]} - 1; i++)); do
        _kvass_unquoted "${words[i]}"
        words[i]=$REPLY
    done

    COMPREPLY=()
    while IFS= read -r word || [[ -n $word ]]; do
        _kvass_quoted "${word#"$before"}" "$quote"
        COMPREPLY+=("$REPLY")
    done < <(_CLAP_IFS=$'\n' _CLAP_COMPLETE_INDEX=$((${#words[@]} - 1)) _CLAP_COMPLETE_COMP_TYPE=$COMP_TYPE \
        _CLAP_COMPLETE_SPACE=false KVASS_COMPLETE=bash kvass -- "${words[@]}" 2> /dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=/:] ]]; then
        compopt -o nospace 2> /dev/null
    fi
}

complete -o bashdefault -o nosort -F _kvass kvass 2> /dev/null || complete -o bashdefault -F _kvass kvass
