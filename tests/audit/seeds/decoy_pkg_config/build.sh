mkdir -p out
pkg-config --exists seeddecoypc
echo same > out/result
