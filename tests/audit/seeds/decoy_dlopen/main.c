#include <dlfcn.h>
#include <stdio.h>

int main(void) { dlopen("libseeddecoy.so.1", RTLD_NOW); puts("same"); return 0; }
