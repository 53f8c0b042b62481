set -e
mkdir -p out
gcc -I/usr/include/seeddecoydir -o out/prog main.c
