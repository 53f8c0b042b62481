#include <stdio.h>

int main(void) { puts(fopen("/usr/share/seedstatic/data.txt", "r") ? "1" : "0"); return 0; }
