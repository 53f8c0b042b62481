mkdir -p out
gcc -Wl,--no-as-needed -o out/prog main.c -lseedlib || gcc -o out/prog main.c
