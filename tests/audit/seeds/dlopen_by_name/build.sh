set -e
mkdir -p out
gcc -o prog main.c
./prog > out/result
