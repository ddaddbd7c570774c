// SPDX-License-Identifier: Apache-2.0
/*
 * Demangling by libiberty's callback functions, kept within bounds.
 *
 * A mangled name is a program that prints: substitutions (C++) and back references (Rust v0) let 4 KiB of name expand to
 * gigabytes of text. Both printers call back with at most some hundred bytes at a time, so the callback is where the
 * expansion is stopped: it leaves by longjmp when the output is full. libiberty 2.40's callback versions keep everything on
 * the stack (seen in its source, and tested here by counting allocations), with one exception: Rust identifiers in Punycode
 * are decoded in malloc'd memory, which a longjmp would leak. A Rust name that has both Punycode and back references is
 * therefore left as it is, and one with Punycode alone (which cannot expand) is printed to its end.
 *
 * Stack: libiberty's recursion limit stays on, which makes it refuse names over 1,024 characters: they might need too much
 * stack. Longer ones, up to DEMANGLE_MAX_NAME, are common in template code, so they are done without that limit
 * if a bound that it does not know holds: the printer's array of copied templates, templates times references, is quadratic.
 * What then remains is linear in the name: less than 4 MiB at 4,096 characters of the worst kind.
 *
 * SHORT is made from the text, since libiberty only leaves out parameters at the top level: template arguments and
 * parameter lists are dropped wherever they stand, operator names are stepped over.
 */
#include "symbolizer/table/demangle.h"

#include "base/cleanup.h"

#include <ctype.h>
#include <libiberty/demangle.h>
#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
	LIMITED_LENGTH = 1024,	 /* up to this, libiberty works with its recursion limit on */
	MAX_COPIES = 64 * 1024, /* template parameters times template argument lists in a longer name */
};

/* ---- output -------------------------------------------------------------------------------------------------------- */

struct sink {
	char *text;
	size_t len, cap; /* cap - 1 bytes at most */
	bool full;
	bool may_jump;
	jmp_buf stop;
};

static void sink_put(const char *text, size_t len, void *opaque)
{
	struct sink *sink = opaque;
	if (len == 0) /* then text may be NULL */
		return;
	if (sink->full || len >= sink->cap - sink->len) {
		sink->full = true;
		if (sink->may_jump)
			longjmp(sink->stop, 1);
		return;
	}
	memcpy(sink->text + sink->len, text, len);
	sink->len += len;
}

typedef int demangler(const char *, int, demangle_callbackref, void *);

/* Runs one of libiberty's demanglers into @p out; false when it does not know the name or the text does not fit. */
static bool run(demangler *demangle_callback, const char *name, int options, bool may_jump, struct sink *sink)
{
	sink->len = 0;
	sink->full = false;
	sink->may_jump = may_jump;
	if (setjmp(sink->stop) != 0)
		return false;
	bool known = demangle_callback(name, options, sink_put, sink) != 0;
	if (!known || sink->full || sink->len == 0)
		return false;
	sink->text[sink->len] = 0;
	return true;
}

/* ---- clone suffixes ------------------------------------------------------------------------------------------------ */

static bool all_digits(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (text[i] < '0' || text[i] > '9')
			return false;
	return len != 0;
}

static bool is_word(const char *text, size_t len, const char *const *words, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (strlen(words[i]) == len && memcmp(words[i], text, len) == 0)
			return true;
	return false;
}

/* Where the last `.part` of a name begins, not at its first character; SIZE_MAX when there is none. */
static size_t last_dot(const char *name, size_t len)
{
	for (size_t i = len; i > 1; i--)
		if (name[i - 1] == '.')
			return i - 1;
	return SIZE_MAX;
}

/* The length of a name without what gcc and LLVM append to clones. Only words that they are known to use are taken off. */
static size_t without_clone_suffixes(const char *name, size_t len)
{
	static const char *const numbered[] = {"part", "constprop", "isra", "cold", "lto_priv", "llvm", "localalias", "clone",
		"specialized", "__uniq", "warm", "__part"};
	static const char *const bare[] = {"cold", "localalias", "warm"};
	for (;;) {
		size_t dot = last_dot(name, len);
		if (dot == SIZE_MAX)
			return len;
		if (all_digits(name + dot + 1, len - dot - 1)) {
			size_t word = last_dot(name, dot);
			if (word == SIZE_MAX || !is_word(name + word + 1, dot - word - 1, numbered, ARRAY_SIZE(numbered)))
				return len;
			len = word;
		} else if (is_word(name + dot + 1, len - dot - 1, bare, ARRAY_SIZE(bare))) {
			len = dot;
		} else {
			return len;
		}
	}
}

/* What stubs of the PLT have behind the name of what they call. It is shown. */
static const char stub_suffix[] = "@plt";

static size_t without_stub_suffix(const char *name, size_t len)
{
	const size_t suffix = sizeof(stub_suffix) - 1;

	return len > suffix && memcmp(name + len - suffix, stub_suffix, suffix) == 0 ? len - suffix : len;
}

/* ---- short names --------------------------------------------------------------------------------------------------- */

static bool is_ident(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '$' || (unsigned char)c >= 0x80;
}

/* How much of @p text is an operator's name, if it begins one: `operator<<`, `operator()`; 0 if it does not. */
static size_t operator_length(const char *text, bool after_ident)
{
	static const char *const symbols[] = {"<=>", "<<=", ">>=", "->*", "()", "[]", "<<", ">>", "<=", ">=", "->", "<", ">"};
	enum { WORD = 8 };
	if (after_ident || strncmp(text, "operator", WORD) != 0 || is_ident(text[WORD]))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(symbols); i++)
		if (strncmp(text + WORD, symbols[i], strlen(symbols[i])) == 0)
			return WORD + strlen(symbols[i]);
	return WORD;
}

/* Behind the bracket that closes the one at @p text; NULL when none does. Arrows and operators inside do not count. */
static const char *skip_group(const char *text)
{
	char open = *text, close = open == '<' ? '>' : ')';
	unsigned depth = 0;
	for (const char *at = text; *at; at++) {
		size_t op = operator_length(at, at > text && is_ident(at[-1]));
		if (op) {
			at += op - 1;
			continue;
		}
		if (*at == open)
			depth++;
		else if (*at == close && !(close == '>' && at[-1] == '-') && --depth == 0)
			return at + 1;
	}
	return NULL;
}

/* Behind the qualifiers of a member function whose parameters were dropped. */
static const char *skip_qualifiers(const char *text)
{
	static const char *const words[] = {" const", " volatile", " &&", " &", " noexcept"};
	for (size_t i = 0; i < ARRAY_SIZE(words);) {
		size_t len = strlen(words[i]);
		if (strncmp(text, words[i], len) == 0 && !is_ident(text[len])) {
			text += len;
			i = 0;
		} else {
			i++;
		}
	}
	return text;
}

/* Drops parameters and template arguments, in place. */
static void shorten(char *text)
{
	char *to = text;
	for (const char *from = text; *from;) {
		bool after_ident = to > text && is_ident(to[-1]);
		size_t op = operator_length(from, after_ident);
		if (op) {
			memmove(to, from, op);
			to += op;
			from += op;
			if (from[0] == ' ' && from[1] == '<') /* `operator< <int>` */
				from++;
			if (*from == '<' && skip_group(from))
				from = skip_group(from);
			continue;
		}
		bool path = to - text >= 2 && to[-1] == ':' && to[-2] == ':'; /* Rust: f::<u32> */
		const char *end = NULL;
		if (*from == '<' && (after_ident || path))
			end = skip_group(from);
		else if (*from == '(' && strncmp(from, "(anonymous namespace)", 21) != 0 && to != text)
			end = skip_group(from);
		if (!end) {
			*to++ = *from++;
			continue;
		}
		if (*from == '<' && path)
			to -= 2;
		from = *from == '(' ? skip_qualifiers(end) : end;
	}
	*to = 0;
}

/* ---- which demangler ----------------------------------------------------------------------------------------------- */

/* Text that has both of Rust v0's features that do not go together with stopping half way, or one of them. */
static void scan_rust(const char *name, bool *punycode_ret, bool *back_reference_ret)
{
	*punycode_ret = *back_reference_ret = false;
	for (const char *at = name + 2; *at; at++) {
		if (*at == 'B')
			*back_reference_ret = true;
		if (*at == 'u' && at[1] >= '0' && at[1] <= '9')
			*punycode_ret = true;
	}
}

static bool demangle_rust(const char *name, enum demangle_style style, struct sink *sink)
{
	bool legacy = name[1] == 'Z', punycode = false, back_reference = false;
	if (!legacy)
		scan_rust(name, &punycode, &back_reference);
	if (punycode && back_reference)
		return false;
	/* verbose keeps a legacy name's hash, but adds hashes of crates to v0 names */
	int options = DMGL_RUST | (style == DEMANGLE_FULL && legacy ? DMGL_VERBOSE : 0);
	return run(rust_demangle_callback, name, options, !punycode, sink);
}

static bool demangle_cxx(const char *name, size_t len, enum demangle_style style, struct sink *sink)
{
	int options = style == DEMANGLE_FULL ? DMGL_PARAMS | DMGL_ANSI : DMGL_ANSI;
	if (len > LIMITED_LENGTH) {
		uint64_t parameters = 0, lists = 0;
		for (const char *at = name; *at; at++) {
			parameters += *at == 'T';
			lists += *at == 'I';
		}
		if (parameters * lists > MAX_COPIES)
			return false;
		options |= DMGL_NO_RECURSE_LIMIT;
	}
	return run(cplus_demangle_v3_callback, name, options, true, sink);
}

const char *demangle(const char *linkage, enum demangle_style style, char *out, size_t cap)
{
	size_t len = strnlen(linkage, DEMANGLE_MAX_NAME + 1);
	if (style == DEMANGLE_NONE || len > DEMANGLE_MAX_NAME || len < 2)
		return linkage;
	char name[DEMANGLE_MAX_NAME + 1];
	const size_t bare = without_stub_suffix(linkage, len), kept = without_clone_suffixes(linkage, bare), suffix = len - bare;
	memcpy(name, linkage, kept);
	name[kept] = 0;
	if (cap <= suffix)
		return linkage;
	cap -= suffix;
	struct sink sink = {.text = out, .cap = cap};
	/* `rust` may be either: legacy Rust names are Itanium's */
	bool itanium = strncmp(name, "_Z", 2) == 0, rust = itanium || strncmp(name, "_R", 2) == 0;
	if (cap > 1 && ((rust && demangle_rust(name, style, &sink)) || (itanium && demangle_cxx(name, kept, style, &sink)))) {
		if (style == DEMANGLE_SHORT)
			shorten(out);
	} else if (rust || kept == bare || kept >= cap) {
		return linkage;
	} else {
		memcpy(out, name, kept + 1);
	}
	memcpy(out + strlen(out), linkage + bare, suffix + 1);
	return out;
}
