# `just ci` is what CI runs; without just, ./test is the same.

ci:
    ./test

fast:
    ./test --fast

demo:
    cargo run --release -- demo

bench:
    cargo bench
