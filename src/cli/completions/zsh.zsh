#compdef jobwatch
# Completes jobwatch in zsh. The program is asked at every <TAB>: it knows the names in the configuration.
_jobwatch() {
    local -a found dirs others
    local line
    found=("${(@f)$(JOBWATCH_COMPLETE=zsh ${(Q)words[1]} -- "${(@)words[1,CURRENT]}" 2> /dev/null)}")
    for line in $found; do
        if [[ $line == */ ]]; then dirs+=("${line%/}"); else others+=("$line"); fi
    done
    (( $#dirs )) && _describe -V 'directory' dirs -S / -r /
    (( $#others )) && _describe -V 'value' others
    (( $#found ))
}
if [[ ${funcstack[1]} == _jobwatch ]]; then
    _jobwatch "$@"
else
    compdef _jobwatch jobwatch
fi
