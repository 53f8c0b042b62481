set -e
mkdir -p out
gcc -I/usr/lib/seedcurrent -o out/prog main.c
