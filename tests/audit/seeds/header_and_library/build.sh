mkdir -p out
gcc -Wl,--no-as-needed -o out/prog main.c -lseedboth || gcc -o out/prog main.c
