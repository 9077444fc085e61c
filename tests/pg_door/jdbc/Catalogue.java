import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.Date;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Callable;

/** What tools on the JVM do at this door, through pgjdbc: look around, prepare, bind. Prints a line for each step: its name, a tab, what it gave. */
public final class Catalogue {
    private static void step(String name, Callable<Object> work) {
        try {
            System.out.println(name + "\t" + work.call());
        } catch (Exception error) {
            System.out.println(name + "\tERROR " + error.getMessage().replace('\n', ' '));
        }
    }

    private static List<String> column(ResultSet rows, String... names) throws SQLException {
        List<String> out = new ArrayList<>();
        try (rows) {
            while (rows.next()) {
                List<String> row = new ArrayList<>();
                for (String name : names) {
                    row.add(rows.getString(name));
                }
                out.add(String.join("|", row.stream().map(String::valueOf).toList()));
            }
        }
        return out;
    }

    public static void main(String[] arguments) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", arguments[1]);
        properties.setProperty("password", System.getenv("PGPASSWORD"));
        // From the second time on a statement is prepared on the server, and its values and rows go in binary.
        properties.setProperty("prepareThreshold", "2");
        try (Connection connection = DriverManager.getConnection("jdbc:postgresql://" + arguments[0] + "/starling", properties)) {
            DatabaseMetaData told = connection.getMetaData();
            step("product", () -> told.getDatabaseProductName() + " " + told.getDatabaseMajorVersion());
            step("schemas", () -> column(told.getSchemas(), "TABLE_SCHEM"));
            step("catalogs", () -> column(told.getCatalogs(), "TABLE_CAT"));
            step("tables", () -> column(told.getTables(null, null, "%", new String[] {"TABLE", "VIEW"}), "TABLE_SCHEM", "TABLE_NAME", "REMARKS"));
            step("columns", () -> column(told.getColumns(null, "stats", "people\\_served\\_daily", "%"), "COLUMN_NAME", "TYPE_NAME", "DATA_TYPE", "NULLABLE", "REMARKS"));
            step("private", () -> column(told.getColumns(null, "private", "%", "%"), "COLUMN_NAME"));
            step("keys", () -> column(told.getPrimaryKeys(null, "stats", "people_served_daily"), "COLUMN_NAME"));
            step("imported", () -> column(told.getImportedKeys(null, "stats", "people_served_daily"), "FKCOLUMN_NAME"));
            step("indexes", () -> column(told.getIndexInfo(null, "stats", "people_served_daily", false, true), "INDEX_NAME"));
            step("types", () -> column(told.getTypeInfo(), "TYPE_NAME").contains("int8"));
            step("functions", () -> column(told.getFunctions(null, null, "%"), "FUNCTION_NAME"));
            step("keywords", told::getSQLKeywords);
            String asked = "SELECT day, value, status FROM stats.people_served_daily WHERE day = ? AND value > ? AND status IN (?, ?) ORDER BY value LIMIT ?";
            try (PreparedStatement statement = connection.prepareStatement(asked)) {
                for (int time = 0; time < 6; time++) {
                    String name = "prepared" + time;
                    step(name, () -> {
                        statement.setDate(1, Date.valueOf("2026-01-05"));
                        statement.setDouble(2, 0.5);
                        statement.setString(3, "released");
                        statement.setString(4, "'; DROP TABLE x; --");
                        statement.setInt(5, 3);
                        return column(statement.executeQuery(), "day", "value", "status");
                    });
                }
                step("described", () -> statement.getMetaData().getColumnTypeName(2) + " " + statement.getParameterMetaData().getParameterTypeName(5));
            }
            try (PreparedStatement statement = connection.prepareStatement("SELECT count(*) AS n FROM stats.people_served_daily WHERE status = ?")) {
                statement.setString(1, "' OR '1' = '1");
                step("injected", () -> column(statement.executeQuery(), "n"));
            }
        }
    }
}
