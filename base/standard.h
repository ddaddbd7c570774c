// SPDX-License-Identifier: Apache-2.0
/*
 * Standard input, output and error of a program that was started without them.
 */
#ifndef CAIRN_BASE_STANDARD_H
#define CAIRN_BASE_STANDARD_H

/**
 * First thing in main(): takes descriptors 0 to 2 where they are closed, so that no file that is opened later gets their
 * numbers, and with them what is meant for a terminal or a log (a store, a table). Using such a descriptor fails with EBADF as
 * if it were closed: 0 cannot be read, 1 and 2 cannot be written. Exits with 1 where /dev/null cannot be opened.
 * Thread: before there are any.
 */
void standard_hold(void);

#endif
