mkdir -p out
if command -v seedprog; then seedprog; else echo none; fi > out/result
