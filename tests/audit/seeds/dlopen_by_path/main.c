#include <dlfcn.h>
#include <stdio.h>

int main(void) { puts(dlopen("/usr/lib/seedplugins/plug.so", RTLD_NOW) ? "1" : "0"); return 0; }
