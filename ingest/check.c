// SPDX-License-Identifier: Apache-2.0
#include "ingest/check.h"

#include "symbolizer/table/table.h"

static struct err *check_table(const struct protocol_result *result, const struct buf *table)
{
	struct table opened;
	struct table_info info;

	TRY(err_wrap(table_open(table->data, table->len, &opened), "worker's table"));
	TRY(err_wrap(table_verify(&opened), "worker's table"));
	table_info(&opened, &info);
	if (!build_id_equal(&info.build_id, &result->build_id))
		return err_new(ERR_PEER, "worker's table has another build ID than its result");
	if (info.elf_machine != result->elf_machine)
		return err_new(ERR_PEER, "worker's table is of machine %u, its result of %u", info.elf_machine, result->elf_machine);
	if (info.sources != result->sources || info.sources == 0)
		return err_new(ERR_PEER, "worker's table comes from sources 0x%x, its result from 0x%x", info.sources, result->sources);
	return NULL;
}

/* A packed file has no ID of its own: profilers know a kernel by its build ID. */
static struct err *check_packed(const struct protocol_result *result)
{
	struct fileid id = fileid_from_kernel_build_id(result->build_id.bytes, result->build_id.len);

	if (!result->packed)
		return NULL;
	if (!result->kernel || !fileid_equal(&result->fileid, &id))
		return err_new(ERR_PEER, "worker's result is of a packed file, and its ID is not that of a kernel");
	return NULL;
}

static struct err *check_file(const struct protocol_result *result, const struct check_expected *expected)
{
	bool same_id = result->packed || fileid_equal(&result->fileid, &expected->fileid);

	if (expected->has_file && (!same_id || result->size_bytes != expected->size_bytes))
		return err_new(ERR_PEER, "worker's result is about another file than it was given");
	if (expected->build_id.len > 0 && !build_id_equal(&expected->build_id, &result->build_id)) {
		char announced[BUILD_ID_HEX_SIZE], found[BUILD_ID_HEX_SIZE];
		build_id_format(&expected->build_id, announced);
		build_id_format(&result->build_id, found);
		return err_new(ERR_MISMATCH, "announced with build ID %s, but the file has %s", announced, found[0] ? found : "none");
	}
	return NULL;
}

struct err *check_result(const struct protocol_result *result, const struct buf *table, const struct check_expected *expected)
{
	if (table->len != result->table_bytes)
		return err_new(ERR_PEER, "worker's table has %zu bytes instead of %llu", table->len,
			(unsigned long long)result->table_bytes);
	if (table->len > 0)
		TRY(check_table(result, table));
	else if (result->sources != 0)
		return err_new(ERR_PEER, "worker's result has sources and no table");
	TRY(check_packed(result));
	return expected ? check_file(result, expected) : NULL;
}
