mkdir -p out
gcc $(pkg-config --cflags seedpc) -o out/prog main.c
