# Completes jobwatch in bash. The program is asked at every <TAB>: it knows the names in the configuration.
_jobwatch() {
    mapfile -t COMPREPLY < <(JOBWATCH_COMPLETE=bash "$1" -- "${COMP_WORDS[@]:0:COMP_CWORD}" "$2" 2> /dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == */ ]]; then
        compopt -o nospace 2> /dev/null
    fi
}
complete -o bashdefault -F _jobwatch jobwatch
