// Multiboot's entry: from 32 to 64 bits, with all vector registers that the CPU has, to run_program() in machine.c.
// Programs run in ring 0 too, so their system calls come to system_call() without leaving it.
.set MAGIC, 0x1badb002
.set FLAGS, 3  // aligned modules, and how much memory there is

.section .multiboot, "a"
.align 4
.long MAGIC, FLAGS, -(MAGIC + FLAGS)

.section .bss
.align 4096
pml4: .skip 4096
pdpt: .skip 4096
pd: .skip 2 * 4096  // 2 GiB
.skip 65536
stack:

.section .data
.align 8
gdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff  // none, 64-bit code, data
gdt_pointer:
  .word gdt_pointer - gdt - 1
  .long gdt

.section .text
.code32
.global _start
_start:
  mov $stack, %esp
  mov %ebx, %edi  // Multiboot's information
  movl $pdpt + 3, pml4
  movl $pd + 3, pdpt
  movl $pd + 4096 + 3, pdpt + 8
  mov $pd, %eax
  mov $0x83, %edx  // a page of 2 MiB, writable
1:
  movl %edx, (%eax)
  add $0x200000, %edx
  add $8, %eax
  cmp $pd + 2 * 4096, %eax
  jne 1b
  mov $pml4, %eax
  mov %eax, %cr3
  mov %cr4, %eax
  or $0x40620, %eax  // PAE, OSFXSR, OSXMMEXCPT, OSXSAVE
  mov %eax, %cr4
  mov $0xc0000080, %ecx  // EFER
  rdmsr
  or $0x101, %eax  // long mode, syscall
  wrmsr
  mov %cr0, %eax
  and $~0xc, %eax  // no emulation of the FPU, no switched task
  or $0x80000023, %eax  // paging, protection
  mov %eax, %cr0
  lgdt gdt_pointer
  ljmp $8, $long_mode

.code64
long_mode:
  mov $16, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  mov $0xd, %eax
  xor %ecx, %ecx
  cpuid
  and $0xe7, %eax  // x87, SSE, AVX, AVX-512
  xor %edx, %edx
  xor %ecx, %ecx
  xsetbv
  mov $0xc0000081, %ecx  // STAR: the code segment of a system call is this one
  xor %eax, %eax
  mov $8, %edx
  wrmsr
  inc %ecx  // LSTAR
  mov $on_syscall, %eax
  xor %edx, %edx
  wrmsr
  mov $0xc0000084, %ecx  // SFMASK
  mov $0x700, %eax
  wrmsr
  mov %edi, %edi
  call run_program

// The number is in rax, arguments in rdi, rsi, rdx, r10, r8, r9; only rax, rcx and r11 may change.
on_syscall:
  push %rcx
  push %r11
  push %rdi
  push %rsi
  push %rdx
  push %r8
  push %r9
  push %r10
  push %rbp
  mov %rsp, %rbp
  and $-16, %rsp
  mov %r10, %r8
  mov %rdx, %rcx
  mov %rsi, %rdx
  mov %rdi, %rsi
  mov %rax, %rdi
  call system_call  // number and four arguments
  mov %rbp, %rsp
  pop %rbp
  pop %r10
  pop %r9
  pop %r8
  pop %rdx
  pop %rsi
  pop %rdi
  pop %r11
  pop %rcx
  push %r11
  popfq
  jmp *%rcx

.global enter_program
enter_program:  // (its first instruction, its stack)
  mov %rsi, %rsp
  xor %edx, %edx
  jmp *%rdi

// What the CPU cannot go on from: an instruction that it lacks, for one.
.macro exception number
exception_\number:
  mov $\number, %edi
  mov %rsp, %rsi
  and $-16, %rsp
  call on_exception
.endm
.irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19
exception \number
.endr

.section .rodata
.align 8
.global exceptions
exceptions:
.irp number, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19
.quad exception_\number
.endr

.section .note.GNU-stack, "", @progbits
