# From reset to 64-bit mode with the wanted vector registers switched on, then kmain of kernel.zig.
#
# Linked at 0xe0000..0xfffff, where the last 128 KiB of the ROM appear below 1 MiB. There is no BIOS. What is written
# lies in RAM from 1 MiB on:
#   0x100000 page tables    0x103000 interrupt table    0x104000 stack pointer of the program during a system call
#   0x106000 page table for the last GiB below 4        0x110000 variables of kernel.zig    ..0x180000 its stack

    .set page_map, 0x100000
    .set page_directories, 0x101000
    .set pages_first_gib, 0x102000
    .set pages_last_gib, 0x106000
    .set interrupts, 0x103000
    .set program_stack, 0x104000
    .set kernel_stack, 0x180000
    .set fault_stack, 0x17f000
    .set parameters, 0xfffdf000        # as in kernel.zig; the first word is the wanted XCR0

    .section .boot16, "ax"
    .code16
    .global start16
start16:
    cli
    cld
    lgdtl %cs:gdt_pointer - 0xf0000
    movl %cr0, %eax
    andl $0x9fffffff, %eax             # CD, NW off: caches on
    orl $1, %eax                       # PE
    movl %eax, %cr0
    ljmpl $0x08, $start32

    .code32
start32:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $kernel_stack, %esp

    # Addresses are what they seem to be: pages of 2 MiB for the RAM and for the ROM at the end of 4 GiB.
    movl $page_map, %edi
    xorl %eax, %eax
    movl $0xc00, %ecx
    rep stosl
    movl $page_directories + 3, page_map
    movl $pages_first_gib + 3, page_directories
    movl $pages_last_gib + 3, page_directories + 3 * 8
    movl $pages_first_gib, %edi
    movl $0x83, %eax
    call fill_pages
    movl $pages_last_gib, %edi
    movl $0xc0000083, %eax
    call fill_pages

    movl %cr4, %eax
    orl $0x40620, %eax                 # PAE, OSFXSR, OSXMMEXCPT, OSXSAVE
    movl %eax, %cr4
    movl $page_map, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx             # EFER
    rdmsr
    orl $0x101, %eax                   # LME, SCE
    wrmsr
    movl %cr0, %eax
    andl $0xfffffff3, %eax             # EM, TS off
    orl $0x80000022, %eax              # PG, NE, MP
    movl %eax, %cr0
    ljmpl $0x18, $start64

fill_pages:                            # (edi: table, eax: first entry)
    movl $512, %ecx
1:  movl %eax, (%edi)
    movl $0, 4(%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 1b
    ret

    .code64
start64:
    # What a system does that saves these registers; programs ask for it before they use them.
    xorl %ecx, %ecx
    xorl %edx, %edx
    movl $parameters, %esi
    movl (%rsi), %eax
    xsetbv
    fninit

    movl $interrupts, %edi
    movl $stubs, %eax
    movl $32, %ecx
1:  movw %ax, (%rdi)
    movw $0x18, 2(%rdi)
    movw $0x8e00, 4(%rdi)
    movl %eax, %edx
    shrl $16, %edx
    movw %dx, 6(%rdi)
    movq $0, 8(%rdi)
    addl $16, %edi
    addl $16, %eax
    loop 1b
    lidt interrupts_pointer

    movl $0xc0000081, %ecx             # STAR: the segment of code is 0x18, of data 0x20
    xorl %eax, %eax
    movl $0x00180018, %edx
    wrmsr
    movl $0xc0000082, %ecx             # LSTAR
    movl $syscall_entry, %eax
    xorl %edx, %edx
    wrmsr
    movl $0xc0000084, %ecx             # FMASK
    xorl %eax, %eax
    wrmsr
    xorl %ebp, %ebp
    call kmain
    hlt

    # One for each exception, 16 bytes apart; all get an error code and a number.
    .balign 16
stubs:
    .set n, 0
    .rept 32
    .balign 16
    .if (n == 8) || (n == 10) || (n == 11) || (n == 12) || (n == 13) || (n == 14) || (n == 17)
    .else
    pushq $0
    .endif
    pushq $n
    jmp fault_common
    .set n, n + 1
    .endr

fault_common:
    movq %rsp, %rdi
    movq %cr2, %rsi
    movl $fault_stack, %esp
    call kfault
    hlt

    # The program runs in ring 0 too, so the way back is a jump. Order as in `Frame` of kernel.zig.
syscall_entry:
    movq %rsp, program_stack
    movl $kernel_stack, %esp
    pushq %rcx
    pushq %r11
    pushq %r9
    pushq %r8
    pushq %r10
    pushq %rdx
    pushq %rsi
    pushq %rdi
    pushq %rax
    movq %rsp, %rdi
    pushq %rbp                         # the stack is aligned
    cld
    call ksyscall
    popq %rbp
    addq $8, %rsp                      # rax is the result
    popq %rdi
    popq %rsi
    popq %rdx
    popq %r10
    popq %r8
    popq %r9
    movq (%rsp), %r11
    popfq
    popq %rcx
    movq program_stack, %rsp
    jmp *%rcx

    .global enter_program
enter_program:                         # (entry, stack)
    movq %rsi, %rsp
    xorl %edx, %edx
    xorl %ebp, %ebp
    jmp *%rdi

    .balign 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff           # 08 code, 32 bits
    .quad 0x00cf93000000ffff           # 10 data
    .quad 0x00af9b000000ffff           # 18 code, 64 bits
    .quad 0x00cf93000000ffff           # 20 data
gdt_pointer:
    .word 39
    .long gdt
    .balign 8
interrupts_pointer:
    .word 511
    .quad interrupts

    .section .reset, "ax"
    .code16
    jmp start16
    .org 16, 0
