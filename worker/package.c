// SPDX-License-Identifier: Apache-2.0
/*
 * Packages. ar (ours) -> data.tar in xz, zstd, gzip or plain (libarchive, streamed) -> ELF members into the scratch file, each at
 * a page boundary, so that it can be mapped: a package of 5 GB costs no memory, only disk. Then the members are looked at,
 * paired by build ID and built one after the other.
 *
 * What an archive can try, and what holds:
 *   names with `..`, absolute, with control characters   nothing is extracted by name; names are cleaned for display
 *   links, devices, fifos, folders                       passed over: only regular files are read
 *   sizes that lie                                       nothing is allocated by a promised size; bytes are counted as they come
 *   bombs                                                every byte that comes out is counted, ELF or not, against
 *                                                        unpacked_bytes and against PACKAGE_RATIO_MAX times what went in
 *   sparse members                                       libarchive fills holes with zeros: they count as bytes
 *   endless members                                      PACKAGE_ENTRIES_MAX, PACKAGE_ELF_MAX
 *   wanted files that are not there                      no result: cairnd counts
 *   archives in archives                                 one compression and one tar; a second compression is refused, a
 *                                                        package among the members is passed over like any file that is no ELF
 *
 * Kernels and modules may be packed once more by themselves (vmlinuz, .ko.xz): what is called like one and begins like one goes to
 * the scratch file as it is, and what is inside of it to the end of the scratch file, counted like all that comes out.
 */
#include "worker/package.h"

#include "worker/ar.h"
#include "worker/convert.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FEED_BYTES = 1 << 20, BLOCK_BYTES = 256 * 1024, SCRATCH_ALIGN = 4096 };

struct member {
	char *name; /* malloc'd, cleaned */
	uint64_t foff; /* in the scratch file */
	size_t len;
	uint64_t packed_bytes; /* of the packed kernel or module that it lay in; 0: it lay in none */
	struct convert_kind kind;
	bool packed; /* not unpacked yet */
	bool usable, done;
	bool wanted; /* its symbols are; else only who it is */
	bool of_sibling; /* of another package: it may be a supplement and nothing else */
};

struct package {
	const struct worker_options *options;
	struct output *output;
	const struct image *supplement; /* NULL: none was given */
	struct build_id *wanted;
	size_t wanted_count; /* 0: all are */
	struct ar_data data;
	bool in_sibling; /* the data is that of the other package */
	size_t fed; /* bytes of data handed to libarchive */
	struct archive *archive;
	uint64_t unpacked; /* bytes that came out */
	uint64_t unpacked_before; /* of them, of the package before this one */
	uint64_t scratch_end;
	struct member *members;
	size_t count, cap;
};

static void package_deinit(struct package *package)
{
	if (package->archive)
		(void)archive_read_free(package->archive);
	for (size_t i = 0; i < package->count; i++)
		free(package->members[i].name);
	free(package->members);
	free(package->wanted);
}

/* ---------------------------------------------------------------------------------------- what is wanted */

static struct err *read_wanted(struct package *package, const struct image *list)
{
	const char *at = (const char *)list->bytes, *end = at + list->len;

	package->wanted = calloc(PACKAGE_WANTED_MAX, sizeof(*package->wanted));
	if (!package->wanted)
		return err_nomem();
	while (at < end) {
		const char *stop = memchr(at, '\n', (size_t)(end - at));
		size_t len = stop ? (size_t)(stop - at) : (size_t)(end - at);
		if (package->wanted_count == PACKAGE_WANTED_MAX || !build_id_parse(at, len, &package->wanted[package->wanted_count]))
			return err_new(ERR_INVALID, "a list of wanted files that is none");
		package->wanted_count++;
		at += len + 1;
	}
	return NULL;
}

static bool is_wanted(const struct package *package, const struct build_id *id)
{
	for (size_t i = 0; i < package->wanted_count; i++)
		if (build_id_equal(&package->wanted[i], id))
			return true;
	return package->wanted_count == 0;
}

/*
 * Whether a member's name says that nobody wants it, so that its bytes need not be kept: debug packages name their files by build
 * ID. Any other name says nothing.
 */
static bool is_named_unwanted(const struct package *package, const char *path)
{
	struct build_id id;

	return build_id_from_path(path, strlen(path), &id) && !is_wanted(package, &id);
}

/* ---------------------------------------------------------------------------------------- reading the archive */

static la_ssize_t feed(struct archive *archive, void *context, const void **bytes_ret)
{
	struct package *package = context;
	size_t left = package->data.len - package->fed;
	size_t take = left < FEED_BYTES ? left : FEED_BYTES;

	(void)archive;
	*bytes_ret = package->data.bytes + package->fed;
	package->fed += take;
	return (la_ssize_t)take;
}

static struct err *archive_error(struct package *package, const char *what)
{
	const char *text = archive_error_string(package->archive);

	if (archive_errno(package->archive) == ENOMEM)
		return err_nomem();
	return err_new(ERR_FORMAT, "package: %s: %s%s", package->data.name, what, text ? text : "damaged");
}

static int support_codec(struct archive *archive, enum codec codec)
{
	switch (codec) {
	case CODEC_GZIP:
		return archive_read_support_filter_gzip(archive);
	case CODEC_XZ:
		return archive_read_support_filter_xz(archive);
	case CODEC_ZSTD:
		return archive_read_support_filter_zstd(archive);
	case CODEC_NONE:
	case CODEC_ZLIB:
	case CODEC_LZMA: /* ar_find_data has refused these */
	case CODEC_LZ4:
		break;
	}
	return ARCHIVE_OK;
}

static struct err *archive_begin(struct package *package)
{
	package->archive = archive_read_new();
	if (!package->archive)
		return err_nomem();
	/* Only the one that the member's name promises: libarchive would go on unwrapping whatever it recognises. */
	if (support_codec(package->archive, package->data.codec) != ARCHIVE_OK ||
		archive_read_support_format_tar(package->archive) != ARCHIVE_OK)
		return archive_error(package, "");
	if (archive_read_open(package->archive, package, NULL, feed, NULL) != ARCHIVE_OK)
		return archive_error(package, "");
	int wanted = package->data.codec == CODEC_NONE ? 1 : 2; /* libarchive counts the plain bytes as a filter */
	if (archive_filter_count(package->archive) != wanted)
		return err_new(ERR_FORMAT, "package: %s: %s", package->data.name,
			archive_filter_count(package->archive) > wanted ? "compressed twice" : "not compressed as its name says");
	return NULL;
}

/* Counts @p len more bytes against the limits. */
static struct err *count_unpacked(struct package *package, size_t len)
{
	package->unpacked += len;
	if (package->unpacked > package->options->unpacked_bytes)
		return err_new(ERR_LIMIT, "package: more than %" PRIu64 " bytes unpacked (ingest.unpacked_max)",
			package->options->unpacked_bytes);
	uint64_t own = package->unpacked - package->unpacked_before;
	if (own > PACKAGE_RATIO_FROM && own / PACKAGE_RATIO_MAX > package->fed)
		return err_new(ERR_LIMIT, "package: a decompression bomb: %" PRIu64 " bytes out of %zu, more than %d to 1",
			own, package->fed, PACKAGE_RATIO_MAX);
	output_progress(package->output, PROTOCOL_UNPACKING, package->fed, package->data.len);
	return NULL;
}

/* Up to @p cap bytes of the present member; 0 at its end. */
static struct err *read_block(struct package *package, uint8_t *block, size_t cap, size_t *len_ret)
{
	size_t len = 0;

	while (len < cap) {
		la_ssize_t got = archive_read_data(package->archive, block + len, cap - len);
		if (got < 0)
			return archive_error(package, "");
		if (got == 0)
			break;
		len += (size_t)got;
	}
	*len_ret = len;
	return count_unpacked(package, len);
}

static struct err *scratch_write(struct package *package, const uint8_t *bytes, size_t len, uint64_t foff)
{
	while (len > 0) {
		ssize_t wrote = pwrite(package->options->scratch_fd, bytes, len, (off_t)foff);
		if (wrote < 0 && errno == EINTR)
			continue;
		if (wrote < 0 && errno == EFBIG)
			return err_new(ERR_LIMIT, "package: its programs pass the scratch file's limit of %" PRIu64 " bytes",
				package->options->unpacked_bytes);
		if (wrote <= 0)
			return err_os(wrote < 0 ? errno : ENOSPC, "scratch file");
		bytes += wrote;
		foff += (uint64_t)wrote;
		len -= (size_t)wrote;
	}
	return NULL;
}

/* ---------------------------------------------------------------------------------------- members */

/* For display: no leading "/" or "./", no "." or ".." between slashes, no control characters. */
static char *clean_name(const char *path)
{
	char name[PROTOCOL_NAME_MAX + 1];
	size_t at = 0;

	while (*path) {
		size_t part = strcspn(path, "/");
		bool dots = part == 0 || (part == 1 && path[0] == '.') || (part == 2 && path[0] == '.' && path[1] == '.');
		if (!dots && at > 0 && at < PROTOCOL_NAME_MAX)
			name[at++] = '/';
		for (size_t i = 0; !dots && i < part && at < PROTOCOL_NAME_MAX; i++)
			name[at++] = (char)((unsigned char)path[i] < 0x20 || path[i] == 0x7f ? '?' : path[i]);
		path += part;
		path += *path == '/';
	}
	name[at] = 0;
	return strdup(at > 0 ? name : "unnamed");
}

static struct err *add_member(struct package *package, struct archive_entry *entry, struct member **ret)
{
	const char *path = archive_entry_pathname(entry);

	if (package->count == PACKAGE_ELF_MAX)
		return err_new(ERR_LIMIT, "package: more than %d ELF files", PACKAGE_ELF_MAX);
	if (package->count == package->cap) {
		size_t cap = package->cap ? 2 * package->cap : 64;
		struct member *members = realloc(package->members, cap * sizeof(*members));
		if (!members)
			return err_nomem();
		package->members = members;
		package->cap = cap;
	}
	char *name = clean_name(path ? path : "");
	if (!name)
		return err_nomem();
	*ret = &package->members[package->count++];
	**ret = (struct member){.name = name, .foff = package->scratch_end, .of_sibling = package->in_sibling};
	return NULL;
}

/* By name and first bytes: a package has other compressed files, too. */
static bool is_packed_kernel(const char *path, const uint8_t *block, size_t len)
{
	return path && kernel_image_is_named(path) && kernel_image_detect(block, len) != KERNEL_IMAGE_NONE;
}

/* An ELF member or packed kernel goes to the scratch file, anything else is read and forgotten: its bytes count. */
static struct err *take_file(struct package *package, struct archive_entry *entry, uint8_t *block)
{
	const char *path = archive_entry_pathname(entry);
	struct member *member = NULL;
	size_t len;

	TRY(read_block(package, block, BLOCK_BYTES, &len));
	bool named_unwanted = path && is_named_unwanted(package, path);
	bool packed = !named_unwanted && is_packed_kernel(path, block, len);
	if (packed || (!named_unwanted && len > 4 && memcmp(block, "\177ELF", 4) == 0)) {
		TRY(add_member(package, entry, &member));
		member->packed = packed;
	}
	while (len > 0) {
		if (member) {
			TRY(scratch_write(package, block, len, member->foff + member->len));
			member->len += len;
		}
		TRY(read_block(package, block, BLOCK_BYTES, &len));
	}
	if (member)
		package->scratch_end = (member->foff + member->len + SCRATCH_ALIGN - 1) & ~(uint64_t)(SCRATCH_ALIGN - 1);
	return NULL;
}

static struct err *unpack(struct package *package, const struct image *image)
{
	CLEANUP(freep) uint8_t *block = malloc(BLOCK_BYTES);

	if (!block)
		return err_nomem();
	package->fed = 0;
	TRY(ar_find_data(image, &package->data));
	TRY(archive_begin(package));
	for (size_t entries = 0;; entries++) {
		struct archive_entry *entry;
		int result = archive_read_next_header(package->archive, &entry);

		if (result == ARCHIVE_EOF)
			return NULL;
		if (result < ARCHIVE_WARN)
			return archive_error(package, "");
		if (entries == PACKAGE_ENTRIES_MAX)
			return err_new(ERR_LIMIT, "package: more than %d entries", PACKAGE_ENTRIES_MAX);
		TRY(count_unpacked(package, 512)); /* the header: an archive may be all headers */
		if (archive_entry_filetype(entry) == AE_IFREG && !archive_entry_hardlink(entry))
			TRY(take_file(package, entry, block));
	}
}

/* ---------------------------------------------------------------------------------------- pairing and building */

static struct err *map_member(const struct package *package, const struct member *member, struct image *ret)
{
	return image_map_part(package->options->scratch_fd, member->foff, member->len, member->name, ret);
}

/* Errors that say that one member is bad, as against that nothing can go on. */
static bool is_members_fault(const struct err *e)
{
	enum err_code code = err_code(e);

	return code == ERR_FORMAT || code == ERR_UNSUPPORTED || code == ERR_LIMIT || code == ERR_MISMATCH;
}

/* Says that a member gave nothing and goes on, or hands the error on. Consumes @p e. */
static struct err *skip(struct package *package, struct member *member, struct err *e)
{
	if (!is_members_fault(e))
		return e;
	struct err *sent = output_skipped(package->output, member->name, err_message(e));
	err_free(e);
	return sent;
}

static struct err *unpack_member(struct package *package, struct member *member)
{
	CLEANUP(image_unmap) struct image image = {0};
	CLEANUP(kernel_image_deinit) struct kernel_image inside = {0};
	uint64_t left = package->options->unpacked_bytes - package->unpacked;

	TRY(map_member(package, member, &image));
	TRY(kernel_image_unpack(image.bytes, image.len, member->name, left, &inside));
	TRY(count_unpacked(package, inside.elf.len));
	member->packed_bytes = member->len;
	if (inside.elf.len == 0) {
		struct convert_input input = {.name = member->name, .member = member->name, .packed_bytes = member->len};
		return convert_bare(&inside, &input, package->output);
	}
	TRY(scratch_write(package, inside.elf.data, inside.elf.len, package->scratch_end));
	member->foff = package->scratch_end;
	member->len = inside.elf.len;
	member->packed = false;
	package->scratch_end = (member->foff + member->len + SCRATCH_ALIGN - 1) & ~(uint64_t)(SCRATCH_ALIGN - 1);
	return NULL;
}

static struct err *unpack_kernels(struct package *package)
{
	for (size_t i = 0; i < package->count; i++) {
		struct err *e = package->members[i].packed ? unpack_member(package, &package->members[i]) : NULL;
		if (e)
			TRY(skip(package, &package->members[i], e));
	}
	return NULL;
}

static struct err *classify(struct package *package)
{
	for (size_t i = 0; i < package->count; i++) {
		CLEANUP(image_unmap) struct image image = {0};
		struct member *member = &package->members[i];

		if (member->packed) /* nothing is inside that could be read further */
			continue;
		TRY(map_member(package, member, &image));
		struct err *e = convert_classify(&image, member->name, &member->kind);
		member->wanted = is_wanted(package, &member->kind.build_id);
		member->usable = !e && !member->of_sibling && member->kind.code && (member->wanted || !member->kind.debug_only);
		if (e)
			TRY(skip(package, member, e));
		else if (!member->kind.code && !member->kind.dwarf && !member->kind.split && !member->of_sibling) /* one with DWARF only is others' supplement */
			TRY(output_skipped(package->output, member->name, "it has no code"));
	}
	return NULL;
}

/* By build ID, runtime files before debug files, else in the archive's order (the scratch file's): pairs become neighbours. */
static int by_build_id(const void *a, const void *b)
{
	const struct member *x = a, *y = b;
	const struct build_id *i = &x->kind.build_id, *j = &y->kind.build_id;

	if (i->len != j->len)
		return i->len < j->len ? -1 : 1;
	int order = memcmp(i->bytes, j->bytes, i->len);
	if (order != 0)
		return order;
	if (x->kind.debug_only != y->kind.debug_only)
		return x->kind.debug_only ? 1 : -1;
	return x->foff < y->foff ? -1 : x->foff > y->foff;
}

/* The debug file of a runtime member; NULL: the package has none. */
static struct member *find_debug(struct package *package, size_t index)
{
	const struct member *runtime = &package->members[index];

	if (runtime->kind.debug_only || runtime->kind.build_id.len == 0)
		return NULL;
	for (size_t i = index + 1; i < package->count; i++) {
		struct member *other = &package->members[i];
		if (!build_id_equal(&other->kind.build_id, &runtime->kind.build_id))
			return NULL;
		if (other->usable && other->kind.debug_only && other->wanted)
			return other;
	}
	return NULL;
}

/* The member that @p user names as its supplement; NULL: it names none, or the package does not have it. */
static const struct member *find_supplement(const struct package *package, const struct member *user)
{
	const struct build_id *id = &user->kind.supplement;

	for (size_t i = 0; id->len > 0 && i < package->count; i++)
		if (build_id_equal(&package->members[i].kind.build_id, id))
			return &package->members[i];
	return NULL;
}

static const struct member *with_dwarf(const struct member *member, const struct member *debug)
{
	return debug && debug->kind.dwarf ? debug : member;
}

/* The first supplement that somebody will need and that is not here. */
static struct err *find_needs(struct package *package, struct protocol_needs *ret)
{
	for (size_t i = 0; i < package->count && ret->build_id.len == 0; i++) {
		CLEANUP(image_unmap) struct image image = {0};
		const struct member *member = &package->members[i];

		if (!member->usable || !member->wanted || member->kind.supplement.len == 0 || find_supplement(package, member))
			continue;
		TRY(map_member(package, member, &image));
		struct convert_input input = {.binary = &image, .name = member->name, .member = member->name};
		TRY(convert_needs(&input, ret));
	}
	return NULL;
}

/* What is mapped of split DWARF for one program. */
struct splits {
	size_t count;
	struct image items[PACKAGE_SPLITS_MAX];
};

static void splits_unmap(struct splits *splits)
{
	for (size_t i = 0; i < splits->count; i++)
		image_unmap(&splits->items[i]);
}

/* Whether @p split is called as the .dwp of a program is: its name and ".dwp", where a debug file's may lack its ".debug". */
static bool is_named_for(const struct member *split, const struct member *program)
{
	static const char suffix[] = ".debug", ending[] = ".dwp";
	size_t len = strlen(program->name), bare = len;

	if (len > strlen(suffix) && strcmp(program->name + len - strlen(suffix), suffix) == 0)
		bare = len - strlen(suffix);
	for (;; len = bare) {
		if (strncmp(split->name, program->name, len) == 0 && strcmp(split->name + len, ending) == 0)
			return true;
		if (len == bare)
			return false;
	}
}

/*
 * The package's split DWARF for a program: the .dwp of its name or its debug file's, else all there is, since units find their other
 * halves by ID. More than PACKAGE_SPLITS_MAX of them would be opened for each program again: then the names decide alone.
 */
static struct err *find_splits(const struct package *package, const struct member *member, const struct member *debug, struct splits *ret)
{
	size_t all = 0;
	bool named = false;

	if (!with_dwarf(member, debug)->kind.skeleton)
		return NULL;
	for (size_t i = 0; i < package->count; i++) {
		const struct member *split = &package->members[i];
		all += split->kind.split;
		named = named || (split->kind.split && (is_named_for(split, member) || (debug && is_named_for(split, debug))));
	}
	for (size_t i = 0; i < package->count && ret->count < PACKAGE_SPLITS_MAX && (named || all <= PACKAGE_SPLITS_MAX); i++) {
		const struct member *split = &package->members[i];
		bool wanted = split->kind.split && (!named || is_named_for(split, member) || (debug && is_named_for(split, debug)));
		if (wanted)
			TRY(map_member(package, split, &ret->items[ret->count]));
		ret->count += wanted;
	}
	return NULL;
}

static struct err *build_member(struct package *package, size_t index)
{
	CLEANUP(splits_unmap) struct splits splits = {0};
	CLEANUP(image_unmap) struct image binary = {0};
	CLEANUP(image_unmap) struct image debug = {0};
	CLEANUP(image_unmap) struct image supplement = {0};
	struct member *member = &package->members[index], *other = find_debug(package, index);
	const struct member *shared = find_supplement(package, with_dwarf(member, other));

	TRY(map_member(package, member, &binary));
	if (other)
		TRY(map_member(package, other, &debug));
	if (shared)
		TRY(map_member(package, shared, &supplement));
	TRY(find_splits(package, member, other, &splits));
	struct convert_input input = {.binary = &binary,
		.debug = other ? &debug : NULL,
		.supplement = shared ? &supplement : package->supplement,
		.splits = splits.items,
		.split_count = splits.count,
		.name = member->name,
		.member = member->name,
		.packed_bytes = member->packed_bytes};
	member->done = true;
	if (other)
		other->done = true;
	struct err *e = member->wanted ? convert_run(&input, package->options, package->output) : convert_identify(&input, package->output);
	return e ? skip(package, member, e) : NULL;
}

static struct err *build_all(struct package *package)
{
	for (size_t i = 0; i < package->count; i++)
		if (package->members[i].usable && !package->members[i].done)
			TRY(build_member(package, i));
	return NULL;
}

struct err *package_run(const struct package_input *input, const struct worker_options *options, struct output *output,
	struct protocol_needs *needs_ret)
{
	CLEANUP(package_deinit) struct package package = {.options = options, .output = output, .supplement = input->supplement};
	struct protocol_needs needs = {0};

	output_progress(output, PROTOCOL_UNPACKING, 0, input->package->len);
	if (input->wanted)
		TRY(read_wanted(&package, input->wanted));
	TRY(unpack(&package, input->package));
	if (input->sibling) {
		(void)archive_read_free(package.archive);
		package.archive = NULL;
		package.in_sibling = true;
		package.unpacked_before = package.unpacked;
		TRY(err_wrap(unpack(&package, input->sibling), "the package with its supplement"));
	}
	TRY(unpack_kernels(&package));
	TRY(classify(&package));
	if (package.count > 0)
		qsort(package.members, package.count, sizeof(*package.members), by_build_id);
	if (!options->alone && !input->supplement && !input->sibling)
		TRY(find_needs(&package, &needs));
	*needs_ret = needs;
	return needs.build_id.len > 0 ? NULL : build_all(&package);
}
