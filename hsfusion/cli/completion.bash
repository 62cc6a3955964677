# bash takes "=" for a space between words: what stands before it is not to be completed
_hsfusion() {
  local line="${COMP_LINE:0:COMP_POINT}" words list; local word="${line##*[[:space:]]}"
  read -ra words <<< "${line%"$word"}"
  case " ${words[*]:1:2} " in
CASES
  esac
  COMPREPLY=($(compgen -W "$list" -- "$word"))
  [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2> /dev/null
  [[ ${COMPREPLY[0]} == "$word" ]] && COMPREPLY=()
  [[ $word == *=* ]] && COMPREPLY=("${COMPREPLY[@]#"${word%%=*}="}")
}
# bash 3.2 of macOS has no compopt: better no space after a word than one after "="
complete -o default $(type compopt &> /dev/null || echo -o nospace) -F _hsfusion hsfusion
