mkdir -p out
./tool > out/result || echo none > out/result
