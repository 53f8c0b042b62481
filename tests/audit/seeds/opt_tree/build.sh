set -e
mkdir -p out
gcc -I/opt/seed/include -o out/prog main.c
