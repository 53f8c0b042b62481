mkdir -p out
gcc $(pkg-config --cflags seedouter) -o out/prog main.c
