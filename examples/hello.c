#include <stdio.h>

int main(void)
{
    puts("C: hello from the jail");
    return 0;
}
