program hello
    implicit none
    print '(a)', 'Fortran: hello from the jail'
end program hello
