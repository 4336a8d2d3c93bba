# Completes jobwatch in fish. The program is asked at every <TAB>: it knows the names in the configuration.
function __jobwatch_complete
    set -l words (commandline --current-process --tokenize --cut-at-cursor)
    JOBWATCH_COMPLETE=fish $words[1] -- $words (commandline --current-token --cut-at-cursor) 2> /dev/null
end
complete --command jobwatch --keep-order --no-files --arguments '(__jobwatch_complete)'
