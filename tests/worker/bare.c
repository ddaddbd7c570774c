// SPDX-License-Identifier: Apache-2.0
/* Linked statically without the C library: after strip -s not even .dynsym is left. */
void _start(void);

void _start(void)
{
	__asm__ volatile("mov $60, %eax\n\txor %edi, %edi\n\tsyscall");
}
