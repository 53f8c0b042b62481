#include <dlfcn.h>
#include <stdio.h>

int main(void) { puts(dlopen("libseeddl.so.1", RTLD_NOW) ? "1" : "0"); return 0; }
