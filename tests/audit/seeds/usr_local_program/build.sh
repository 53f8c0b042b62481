mkdir -p out
if command -v seedlocalprog; then seedlocalprog; else echo none; fi > out/result
