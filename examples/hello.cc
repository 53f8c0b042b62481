#include <iostream>

int main()
{
    std::cout << "C++: hello from the jail\n";
}
