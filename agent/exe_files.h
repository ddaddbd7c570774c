// SPDX-License-Identifier: Apache-2.0
/*
 * Files of other processes: what they map, and the debug files in their roots. Opened so that neither a symbolic link of
 * theirs leads out of their root, nor a FIFO or a device holds us up.
 */
#ifndef CAIRN_AGENT_EXE_FILES_H
#define CAIRN_AGENT_EXE_FILES_H

#include "agent/proc_maps.h"
#include "fileid/build_id.h"

#include <stdint.h>
#include <sys/stat.h>

/** A regular file below the root of process @p pid; -1: none (errno). Links are followed inside of that root only (Linux 5.6). */
int exe_files_open_in_root(uint32_t pid, const char *path, struct stat *ret);
/** The same, of a root by its folder ("/proc/PID/root"). */
int exe_files_open_below(const char *root, const char *path, struct stat *ret);
/** What the file behind a mapping is, without reading it: by /proc/PID/map_files, else by its path, if that is the same inode still. False: gone, or not a file. */
bool exe_files_stat(uint32_t pid, const struct proc_map *map, struct stat *ret);
/** Opens it in the same way; -1: gone, or not a regular file. */
int exe_files_open(uint32_t pid, const struct proc_map *map, struct stat *ret);
/**
 * The separate debug file of an executable, as gdb finds it: /usr/lib/debug/.build-id, then @p debuglink beside it, in .debug and
 * below /usr/lib/debug; in the process's root, then in ours. -1: none.
 */
int exe_files_open_debug(uint32_t pid, const char *path, const struct build_id *build_id, const char *debuglink);

#endif
