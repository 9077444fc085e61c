//! Which tables there are and their columns, as PostgreSQL 16 has them, in its order.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::{INFORMATION_SCHEMA, PG_CATALOG};

/// A table's columns as one text: each name with a letter for its type. `o` a number of an object, `s` `i` `l` whole numbers, `f` a
/// double, `b` a boolean, `c` a short text that is empty where nothing is said, `m` a moment, nothing: text that may be NULL.
pub(crate) struct Spec {
    pub(crate) schema: &'static str,
    pub(crate) name: &'static str,
    columns: &'static str,
}

impl Spec {
    /// (name, letter) of each column.
    pub(super) fn columns_told(&self) -> impl Iterator<Item = (&'static str, char)> {
        self.columns.split_whitespace().map(|column| match column.split_once(':') {
            Some((name, letter)) => (name, letter.chars().next().unwrap_or('t')),
            None => (column, 't'),
        })
    }

    pub(crate) fn columns(&self) -> SchemaRef {
        let field = |(name, letter)| {
            let kind = match letter {
                's' => DataType::Int16,
                'i' => DataType::Int32,
                'o' | 'l' => DataType::Int64,
                'f' => DataType::Float64,
                'b' => DataType::Boolean,
                'm' => DataType::Timestamp(TimeUnit::Millisecond, None),
                _ => DataType::Utf8,
            };
            Field::new(name, kind, true)
        };
        Arc::new(Schema::new(self.columns_told().map(field).collect::<Vec<_>>()))
    }
}

/// All system tables with their columns, which are made once.
pub(crate) fn with_columns() -> impl Iterator<Item = (&'static Spec, SchemaRef)> {
    static COLUMNS: LazyLock<Vec<SchemaRef>> = LazyLock::new(|| TABLES.iter().map(Spec::columns).collect());
    TABLES.iter().zip(COLUMNS.iter().cloned())
}

/// All system tables.
pub(crate) fn all() -> impl Iterator<Item = &'static Spec> {
    TABLES.iter()
}

/// The table a name means, which is PostgreSQL's own where it has no schema.
pub(crate) fn find(schema: Option<&str>, name: &str) -> Option<&'static Spec> {
    all().find(|table| table.schema == schema.unwrap_or(PG_CATALOG) && table.name == name)
}

const fn pg(name: &'static str, columns: &'static str) -> Spec {
    Spec { schema: PG_CATALOG, name, columns }
}

const fn standard(name: &'static str, columns: &'static str) -> Spec {
    Spec { schema: INFORMATION_SCHEMA, name, columns }
}

static TABLES: [Spec; 76] = [
    pg("pg_namespace", "oid:o nspname nspowner:o nspacl"),
    pg(
        "pg_class",
        "oid:o relname relnamespace:o reltype:o reloftype:o relowner:o relam:o relfilenode:o reltablespace:o relpages:i reltuples:f \
         relallvisible:i reltoastrelid:o relhasindex:b relisshared:b relpersistence:c relkind:c relnatts:s relchecks:s relhasrules:b relhastriggers:b \
         relhassubclass:b relrowsecurity:b relforcerowsecurity:b relispopulated:b relreplident:c relispartition:b relrewrite:o relfrozenxid:o relminmxid:o relacl \
         reloptions relpartbound",
    ),
    pg(
        "pg_attribute",
        "attrelid:o attname atttypid:o attlen:s attnum:s attcacheoff:i atttypmod:i attndims:s attbyval:b attalign:c attstorage:c \
         attcompression:c attnotnull:b atthasdef:b atthasmissing:b attidentity:c attgenerated:c attisdropped:b attislocal:b attinhcount:s attstattarget:s \
         attcollation:o attacl attoptions attfdwoptions attmissingval",
    ),
    pg("pg_attrdef", "oid:o adrelid:o adnum:s adbin"),
    pg(
        "pg_type",
        "oid:o typname typnamespace:o typowner:o typlen:s typbyval:b typtype:c typcategory:c typispreferred:b typisdefined:b typdelim:c typrelid:o \
         typsubscript typelem:o typarray:o typinput typoutput typreceive typsend typmodin typmodout typanalyze typalign:c typstorage:c typnotnull:b \
         typbasetype:o typtypmod:i typndims:i typcollation:o typdefaultbin typdefault typacl",
    ),
    pg("pg_description", "objoid:o classoid:o objsubid:i description"),
    pg("pg_shdescription", "objoid:o classoid:o description"),
    pg(
        "pg_index",
        "indexrelid:o indrelid:o indnatts:s indnkeyatts:s indisunique:b indnullsnotdistinct:b indisprimary:b indisexclusion:b indimmediate:b indisclustered:b \
         indisvalid:b indcheckxmin:b indisready:b indislive:b indisreplident:b indkey indcollation indclass indoption indexprs indpred",
    ),
    pg(
        "pg_constraint",
        "oid:o conname connamespace:o contype:c condeferrable:b condeferred:b convalidated:b conrelid:o contypid:o conindid:o conparentid:o confrelid:o \
         confupdtype:c confdeltype:c confmatchtype:c conislocal:b coninhcount:s connoinherit:b conkey confkey conpfeqop conppeqop conffeqop confdelsetcols conexclop conbin",
    ),
    pg("pg_inherits", "inhrelid:o inhparent:o inhseqno:i inhdetachpending:b"),
    pg("pg_policy", "oid:o polname polrelid:o polcmd:c polpermissive:b polroles polqual polwithcheck"),
    pg("pg_policies", "schemaname tablename policyname permissive roles cmd qual with_check"),
    pg(
        "pg_database",
        "oid:o datname datdba:o encoding:i datlocprovider:c datistemplate:b datallowconn:b datconnlimit:i datfrozenxid:o datminmxid:o dattablespace:o \
         datcollate datctype daticulocale daticurules datcollversion datacl",
    ),
    pg(
        "pg_roles",
        "rolname rolsuper:b rolinherit:b rolcreaterole:b rolcreatedb:b rolcanlogin:b rolreplication:b rolconnlimit:i rolpassword rolvaliduntil:m rolbypassrls:b rolconfig oid:o",
    ),
    pg(
        "pg_authid",
        "oid:o rolname rolsuper:b rolinherit:b rolcreaterole:b rolcreatedb:b rolcanlogin:b rolreplication:b rolbypassrls:b rolconnlimit:i rolpassword rolvaliduntil:m",
    ),
    pg("pg_user", "usename usesysid:o usecreatedb:b usesuper:b userepl:b usebypassrls:b passwd valuntil:m useconfig"),
    pg("pg_group", "groname grosysid:o grolist"),
    pg("pg_auth_members", "oid:o roleid:o member:o grantor:o admin_option:b inherit_option:b set_option:b"),
    pg(
        "pg_settings",
        "name setting unit category short_desc extra_desc context vartype source min_val max_val enumvals boot_val reset_val sourcefile sourceline:i pending_restart:b",
    ),
    pg("pg_tables", "schemaname tablename tableowner tablespace hasindexes:b hasrules:b hastriggers:b rowsecurity:b"),
    pg("pg_views", "schemaname viewname viewowner definition"),
    pg("pg_matviews", "schemaname matviewname matviewowner tablespace hasindexes:b ispopulated:b definition"),
    pg("pg_indexes", "schemaname tablename indexname tablespace indexdef"),
    pg(
        "pg_sequences",
        "schemaname sequencename sequenceowner data_type start_value:l min_value:l max_value:l increment_by:l cycle:b cache_size:l last_value:l",
    ),
    pg("pg_sequence", "seqrelid:o seqtypid:o seqstart:l seqincrement:l seqmax:l seqmin:l seqcache:l seqcycle:b"),
    pg("pg_am", "oid:o amname amhandler amtype:c"),
    pg("pg_opclass", "oid:o opcmethod:o opcname opcnamespace:o opcowner:o opcfamily:o opcintype:o opcdefault:b opckeytype:o"),
    pg("pg_opfamily", "oid:o opfmethod:o opfname opfnamespace:o opfowner:o"),
    pg("pg_conversion", "oid:o conname connamespace:o conowner:o conforencoding:i contoencoding:i conproc condefault:b"),
    pg("pg_operator", "oid:o oprname oprnamespace:o oprowner:o oprkind:c oprleft:o oprright:o oprresult:o oprcode"),
    pg(
        "pg_proc",
        "oid:o proname pronamespace:o proowner:o prolang:o procost:f prorows:f provariadic:o prosupport prokind:c prosecdef:b proleakproof:b proisstrict:b \
         proretset:b provolatile:c proparallel:c pronargs:s pronargdefaults:s prorettype:o proargtypes proallargtypes proargmodes proargnames proargdefaults protrftypes \
         prosrc probin prosqlbody proconfig proacl",
    ),
    pg("pg_aggregate", "aggfnoid:o aggkind:c aggnumdirectargs:s"),
    pg("pg_language", "oid:o lanname lanowner:o lanispl:b lanpltrusted:b lanplcallfoid:o laninline:o lanvalidator:o lanacl"),
    pg("pg_enum", "oid:o enumtypid:o enumsortorder:f enumlabel"),
    pg("pg_range", "rngtypid:o rngsubtype:o rngmultitypid:o rngcollation:o rngsubopc:o rngcanonical rngsubdiff"),
    pg("pg_cast", "oid:o castsource:o casttarget:o castfunc:o castcontext:c castmethod:c"),
    pg(
        "pg_collation",
        "oid:o collname collnamespace:o collowner:o collprovider:c collisdeterministic:b collencoding:i collcollate collctype colliculocale collicurules collversion",
    ),
    pg("pg_extension", "oid:o extname extowner:o extnamespace:o extrelocatable:b extversion extconfig extcondition"),
    pg("pg_available_extensions", "name default_version installed_version comment"),
    pg(
        "pg_trigger",
        "oid:o tgrelid:o tgparentid:o tgname tgfoid:o tgtype:s tgenabled:c tgisinternal:b tgconstrrelid:o tgconstrindid:o tgconstraint:o tgdeferrable:b tginitdeferred:b tgnargs:s tgattr tgargs tgqual tgoldtable tgnewtable",
    ),
    pg("pg_event_trigger", "oid:o evtname evtevent evtowner:o evtfoid:o evtenabled:c evttags"),
    pg("pg_rewrite", "oid:o rulename ev_class:o ev_type:c ev_enabled:c is_instead:b ev_qual ev_action"),
    pg("pg_rules", "schemaname tablename rulename definition"),
    pg("pg_foreign_table", "ftrelid:o ftserver:o ftoptions"),
    pg("pg_foreign_server", "oid:o srvname srvowner:o srvfdw:o srvtype srvversion srvacl srvoptions"),
    pg("pg_foreign_data_wrapper", "oid:o fdwname fdwowner:o fdwhandler:o fdwvalidator:o fdwacl fdwoptions"),
    pg("pg_depend", "classid:o objid:o objsubid:i refclassid:o refobjid:o refobjsubid:i deptype:c"),
    pg("pg_shdepend", "dbid:o classid:o objid:o objsubid:i refclassid:o refobjid:o deptype:c"),
    pg("pg_tablespace", "oid:o spcname spcowner:o spcacl spcoptions"),
    pg("pg_partitioned_table", "partrelid:o partstrat:c partnatts:s partdefid:o partattrs partclass partcollation partexprs"),
    pg("pg_statistic_ext", "oid:o stxrelid:o stxname stxnamespace:o stxowner:o stxstattarget:i stxkeys stxkind stxexprs"),
    pg(
        "pg_publication",
        "oid:o pubname pubowner:o puballtables:b pubinsert:b pubupdate:b pubdelete:b pubtruncate:b pubviaroot:b",
    ),
    pg("pg_publication_namespace", "oid:o pnpubid:o pnnspid:o"),
    pg("pg_publication_rel", "oid:o prpubid:o prrelid:o prqual prattrs"),
    pg("pg_subscription", "oid:o subdbid:o subname subowner:o subenabled:b"),
    pg("pg_default_acl", "oid:o defaclrole:o defaclnamespace:o defaclobjtype:c defaclacl"),
    pg("pg_db_role_setting", "setdatabase:o setrole:o setconfig"),
    pg("pg_seclabel", "objoid:o classoid:o objsubid:i provider label"),
    pg("pg_locks", "locktype database:o relation:o pid:i mode granted:b"),
    pg("pg_stat_activity", "datid:o datname pid:i usesysid:o usename application_name client_addr state query backend_type"),
    pg("pg_stat_user_tables", "relid:o schemaname relname n_live_tup:l n_dead_tup:l"),
    pg("pg_timezone_names", "name abbrev utc_offset is_dst:b"),
    pg("pg_get_keywords", "word catcode:c barelabel:b catdesc baredesc"),
    standard(
        "schemata",
        "catalog_name schema_name schema_owner default_character_set_catalog default_character_set_schema default_character_set_name sql_path",
    ),
    standard(
        "tables",
        "table_catalog table_schema table_name table_type self_referencing_column_name reference_generation user_defined_type_catalog user_defined_type_schema \
         user_defined_type_name is_insertable_into is_typed commit_action",
    ),
    standard(
        "columns",
        "table_catalog table_schema table_name column_name ordinal_position:i column_default is_nullable data_type character_maximum_length:i character_octet_length:i \
         numeric_precision:i numeric_precision_radix:i numeric_scale:i datetime_precision:i interval_type interval_precision:i character_set_catalog character_set_schema \
         character_set_name collation_catalog collation_schema collation_name domain_catalog domain_schema domain_name udt_catalog udt_schema udt_name scope_catalog \
         scope_schema scope_name maximum_cardinality:i dtd_identifier is_self_referencing is_identity identity_generation identity_start identity_increment \
         identity_maximum identity_minimum identity_cycle is_generated generation_expression is_updatable",
    ),
    standard(
        "views",
        "table_catalog table_schema table_name view_definition check_option is_updatable is_insertable_into is_trigger_updatable is_trigger_deletable is_trigger_insertable_into",
    ),
    standard(
        "table_constraints",
        "constraint_catalog constraint_schema constraint_name table_catalog table_schema table_name constraint_type is_deferrable initially_deferred enforced nulls_distinct",
    ),
    standard(
        "key_column_usage",
        "constraint_catalog constraint_schema constraint_name table_catalog table_schema table_name column_name ordinal_position:i position_in_unique_constraint:i",
    ),
    standard(
        "referential_constraints",
        "constraint_catalog constraint_schema constraint_name unique_constraint_catalog unique_constraint_schema unique_constraint_name match_option update_rule delete_rule",
    ),
    standard(
        "constraint_column_usage",
        "table_catalog table_schema table_name column_name constraint_catalog constraint_schema constraint_name",
    ),
    standard(
        "routines",
        "specific_catalog specific_schema specific_name routine_catalog routine_schema routine_name routine_type data_type routine_body routine_definition external_language",
    ),
    standard(
        "parameters",
        "specific_catalog specific_schema specific_name ordinal_position:i parameter_mode parameter_name data_type",
    ),
    standard(
        "sequences",
        "sequence_catalog sequence_schema sequence_name data_type start_value minimum_value maximum_value increment cycle_option",
    ),
    standard(
        "triggers",
        "trigger_catalog trigger_schema trigger_name event_manipulation event_object_catalog event_object_schema event_object_table action_statement",
    ),
    standard(
        "table_privileges",
        "grantor grantee table_catalog table_schema table_name privilege_type is_grantable with_hierarchy",
    ),
];
