"""Full-text search of the catalogue: a generated column with its index.

The column is PostgreSQL's own business and no field of the model: no query of a dataset should carry it about, and
nothing may write it. queries.py names it in the one place that searches.
"""

from django.db import migrations

ADD = """
ALTER TABLE datasets_dataset ADD COLUMN search tsvector GENERATED ALWAYS AS (
    setweight(to_tsvector('english'::regconfig, title), 'A')
    || setweight(to_tsvector('simple'::regconfig, slug), 'A')
    || setweight(to_tsvector('english'::regconfig, keywords), 'B')
    || setweight(to_tsvector('english'::regconfig, summary), 'C')
) STORED;
CREATE INDEX datasets_dataset_search ON datasets_dataset USING gin (search);
"""
REMOVE = "ALTER TABLE datasets_dataset DROP COLUMN search;"


class Migration(migrations.Migration):
    dependencies = [("datasets", "0001_initial")]
    operations = [migrations.RunSQL(ADD, REMOVE)]
