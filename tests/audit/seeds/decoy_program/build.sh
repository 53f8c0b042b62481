mkdir -p out
command -v seeddecoyprog > log
echo same > out/result
