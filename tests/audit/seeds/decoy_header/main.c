#if __has_include(<seeddecoyhas.h>)
#endif
int main(void) { return 0; }
