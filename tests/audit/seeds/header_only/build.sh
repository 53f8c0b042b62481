set -e
mkdir -p out
gcc -o out/prog main.c
