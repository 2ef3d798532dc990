"""How bash, zsh and fish ask what a command line could go on with, and take the answer.

Each script hands over the line up to the cursor, and is given lines of type, value and help, separated by tabs:
`plain` is a value, `part` one that is not over yet, `file` and `dir` leave it to the shell. The scripts hold none of
layerbuild's names, so that they stay as they are when it changes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

BASH = """\
# Completion of layerbuild for bash. Written by 'layerbuild completion bash'.
_layerbuild_completion() {
    local type value rest part=
    COMPREPLY=()
    while IFS=$'\\t' read -r type value rest; do
        case $type in
            plain) COMPREPLY+=("$value") ;;
            part) COMPREPLY+=("$value") part=1 ;;
            file) compopt -o default 2>/dev/null ;;
            dir) compopt -o dirnames 2>/dev/null ;;
        esac
    done < <(env _LAYERBUILD_COMPLETE=bash COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" \\
        COMP_WORDBREAKS="$COMP_WORDBREAKS" "$1" 2>/dev/null)
    if [[ -n $part && ${#COMPREPLY[@]} -eq 1 ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -o nosort -F _layerbuild_completion layerbuild 2>/dev/null ||
    complete -F _layerbuild_completion layerbuild
"""

ZSH = """\
#compdef layerbuild
# Completion of layerbuild for zsh. Written by 'layerbuild completion zsh'.
_layerbuild() {
    local line type value help
    local -a values parts described
    local typed="${(j: :)words[1,CURRENT-1]} $PREFIX"
    compset -P '--[^=]#=' || compset -P '--*='
    while IFS=$'\\t' read -r type value help; do
        case $type in
            plain)
                if [[ -n $help ]]; then
                    described+=("${value//:/\\\\:}:$help")
                else
                    values+=("$value")
                fi ;;
            part) parts+=("$value") ;;
            file) _path_files ;;
            dir) _path_files -/ ;;
        esac
    done < <(_LAYERBUILD_COMPLETE=zsh COMP_LINE="$typed" "${words[1]}" 2>/dev/null)
    (( $#described )) && _describe -V layerbuild described
    (( $#values )) && compadd -V values -a values
    (( $#parts )) && compadd -V parts -S '' -a parts
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _layerbuild "$@"
else
    compdef _layerbuild layerbuild
fi
"""

FISH = """\
# Completion of layerbuild for fish. Written by 'layerbuild completion fish'.
function _layerbuild_completion
    set -l line (commandline -cp)
    set -l program (commandline -opc)[1]
    for answer in (env _LAYERBUILD_COMPLETE=fish COMP_LINE="$line" $program 2>/dev/null)
        set -l parts (string split --max 2 \\t -- $answer)
        switch $parts[1]
            case file
                __fish_complete_path (commandline -ct)
            case dir
                __fish_complete_directories (commandline -ct)
            case '*'
                string join \\t -- $parts[2..3]
        end
    end
end
complete --command layerbuild --no-files --keep-order --arguments '(_layerbuild_completion)'
"""

SCRIPTS: Mapping[str, str] = {"bash": BASH, "zsh": ZSH, "fish": FISH}
"""By the name of the shell."""

_HARMLESS = re.compile(r"[\w@%+=:,./*-][\w@%+=:,./~*-]*")
"""Words that no shell reads anything into."""


def line(environ: Mapping[str, str]) -> str:
    """The command line up to the cursor, from its first word on."""
    text = environ.get("COMP_LINE", "")
    point = environ.get("COMP_POINT", "")
    # bash counts bytes.
    return os.fsdecode(os.fsencode(text)[: int(point)]) if point.isascii() and point.isdigit() else text


def word_as_taken(shell: str, word: str, typed: str, environ: Mapping[str, str]) -> str | None:
    """What a shell puts in place of what was typed of a word; None for what it cannot be given.

    Args:
        word: the whole word, with the option before a `=` if there is one.
        typed: what there is of it.
    """
    if shell == "fish":
        return word
    if shell == "zsh":
        option = re.match(r"--[^=]*=", typed)
        return word[option.end() :] if option else word
    # bash puts it in as it is, after the last character that breaks words; an @ is part of what it begins.
    known = environ.get("COMP_WORDBREAKS", "")
    starts = [typed.rfind(c) + (c != "@") for c in ":=@" if c in known and c in typed]
    return word[max(starts, default=0) :] if _HARMLESS.fullmatch(word) else None
