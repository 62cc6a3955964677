#compdef hsfusion
_hsfusion() {
  local list
  case " ${words[2,CURRENT-1]} " in
CASES
  esac
  compadd -S '' -- ${=list} || { compset -P '*='; _files }
}
compdef _hsfusion hsfusion
