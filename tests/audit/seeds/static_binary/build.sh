set -e
mkdir -p out
gcc -static -o prog main.c
./prog > out/result
