// SPDX-License-Identifier: Apache-2.0
/*
 * What an independent reader says about a file: the functions, inlined calls and line rows of its DWARF by libdwarf, its function
 * symbols by libelf. Slow, simple, and sharing no code with the builder but the bounded ELF reader that inflates
 * sections. libdwarf 20210528 corrupts memory on damaged input: only verify_child.h's child may walk strangers' files.
 */
#ifndef CAIRN_SYMBOLIZER_BUILD_REFERENCE_H
#define CAIRN_SYMBOLIZER_BUILD_REFERENCE_H

#include "base/intern.h"
#include "symbolizer/build/array.h"
#include "symbolizer/build/elf_file.h"

enum { REFERENCE_NONE = UINT32_MAX };

/* A function of the source, whatever number of copies it has. Text is a number of reference.text. */
struct reference_function {
	uint32_t linkage; /* DW_AT_linkage_name; REFERENCE_NONE: there is none */
	uint32_t name;	  /* DW_AT_name; REFERENCE_NONE: there is none */
	uint64_t line;	  /* DW_AT_decl_line, 0: unknown */
};

/* A function's code, or an inlined call in it. */
struct reference_node {
	uint32_t parent; /* the function that it is inlined in; REFERENCE_NONE: it is not inlined */
	uint32_t function;
	uint32_t call_file; /* path; REFERENCE_NONE: unknown */
	uint64_t call_line, call_column;
};

/* [low, high), one of several of a node. */
struct reference_range {
	uint64_t low, high;
	uint32_t node;
};

/* A row of a line table. */
struct reference_row {
	uint64_t vaddr;
	uint32_t file; /* path; REFERENCE_NONE: an index that is out of range */
	/*
	 * libdwarf 20210528 starts the file register of DWARF 5 at 0, everybody else at 1: a row that it attributes to file 0 may
	 * be file 1's. This is then file 1, else REFERENCE_NONE.
	 */
	uint32_t other_file;
	uint32_t line, column;
};

/* Rows [first, first + count) in the order of the line program; the last one's address is high. */
struct reference_sequence {
	uint64_t low, high;
	size_t first, count;
	bool is_split; /* of a skeleton unit: the functions here are not known */
};

/* A function symbol by libelf. */
struct reference_symbol {
	uint64_t low, high; /* high is the end of the section for a sizeless one */
	uint32_t name;
	bool sized;
};

struct reference {
	struct intern text;
	struct ARRAY_OF(struct reference_function) functions;
	struct ARRAY_OF(struct reference_node) nodes;
	struct ARRAY_OF(struct reference_range) ranges;	      /* sorted by low */
	struct ARRAY_OF(struct reference_row) rows;
	struct ARRAY_OF(struct reference_sequence) sequences; /* sorted by low */
	struct ARRAY_OF(struct reference_symbol) symbols;     /* sorted by low */
	struct account account;
	uint64_t units, dies, line_tables;
	uint64_t type_units;  /* not walked: they hold no code */
	uint64_t split_units; /* skeletons: lines only, since libdwarf misreads their other halves */
	uint64_t tombstones;		  /* ranges and sequences that begin in no executable section */
	uint64_t repaired_rows; /* rows that libdwarf took for ends of sequences because epilogue_begin was set: taken as rows */
	uint64_t failures;	/* units, line tables and range lists that libdwarf refused */
	char failure[256];	/* the first of them */
};

/**
 * Walks the DWARF of @p file, adding to @p reference. Addresses of a relocatable file are those of its layout (elffile_base). Units that libdwarf refuses are counted in failures.
 * @return NULL; ERR_INTERNAL: libdwarf refuses the file; ERR_NOMEM; ERR_FORMAT, ERR_LIMIT: a section cannot be inflated. One thread.
 */
struct err *reference_add_dwarf(struct reference *reference, struct elffile *file) MUST_USE;

/** Adds the function symbols (.symtab and .dynsym) that libelf reads. ERR_INTERNAL: libelf refuses the file. One thread. */
struct err *reference_add_symbols(struct reference *reference, const struct elffile *file) MUST_USE;

/** Sorts what was added: before anything is looked up. */
void reference_sort(struct reference *reference);
/** For CLEANUP too. */
void reference_deinit(struct reference *reference);

/* Shared by the reference_*.c files. */

/** The text's number. */
struct err *reference_text(struct reference *reference, const char *text, uint32_t *ret) MUST_USE;
/** Counts a failure, and keeps the first as text. */
void reference_failed(struct reference *reference, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
