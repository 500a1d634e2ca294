"""The URL of a server, which may be one that the application has written for another driver."""

from contextlib import contextmanager

import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from sapwood import Sapwood
from sapwood.adapters.sqlalchemy import SQLAlchemyAdapter
from sapwood.errors import ConfigurationError
from sapwood.record import JobDraft

DRAFT = JobDraft(job="m:J", args="{}", queue="ü")


def of(url, driver, **query):
    return make_url(url).set(drivername=driver).update_query_dict(query)


@contextmanager
def connection_of(adapter):
    """Return the driver's connection, once the adapter has shown that it works."""
    try:
        adapter.migrate()
        adapter.enqueue([DRAFT])
        assert [record.queue for record in adapter.jobs()] == ["ü"]
        with adapter._reading() as connection:
            yield connection.connection.driver_connection
    finally:
        adapter.close()


@pytest.mark.parametrize("kind", [create_async_engine, str, lambda url: url], ids=["engine", "text", "URL"])
def test_options_of_asyncpg_are_told_to_psycopg_in_its_own_words(kind, postgresql_url):
    url = of(postgresql_url, "postgresql+asyncpg", ssl="disable", timeout="7", prepared_statement_cache_size="0")
    given = url.render_as_string(hide_password=False) if kind is str else kind(url)
    with connection_of(SQLAlchemyAdapter(given)) as connection:
        told = connection.info.get_parameters()
    assert (told["sslmode"], told["connect_timeout"]) == ("disable", "7")


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg2", "postgresql+psycopg"])
def test_options_of_libpq_are_told_as_they_are_and_come_before_our_own(driver, postgresql_url):
    url = of(postgresql_url, driver, sslmode="disable", application_name="shop", keepalives_idle="30")
    with connection_of(SQLAlchemyAdapter(url)) as connection:
        told = connection.info.get_parameters()
    assert (told["sslmode"], told["application_name"], told["keepalives_idle"]) == ("disable", "shop", "30")
    assert told["connect_timeout"] == "5"


@pytest.mark.parametrize("driver", ["mysql+aiomysql", "mysql+asyncmy", "mysql+pymysql", "mariadb+pymysql"])
def test_options_of_other_drivers_are_told_to_pymysql_and_text_travels_as_utf8(driver, mysql_url):
    url = of(mysql_url, driver, charset="latin1", connect_timeout="7")
    with connection_of(SQLAlchemyAdapter(url)) as told:
        assert (told.connect_timeout, told.charset) == (7, "utf8mb4")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://me:secret@db/shop?command_timeout=60",
        "postgresql+psycopg://me:secret@db/shop?ssl=prefer",
        "postgresql+pg8000://me:secret@db/shop?tcp_keepalive=1",
        "mysql+asyncmy://me:secret@db/shop?ssl=true",
        "mysql+aiomysql://me:secret@db/shop?init_command=SELECT+1",
        "mysql+mysqldb://me:secret@db/shop?ssl_mode=REQUIRED",
    ],
)
def test_an_option_that_cannot_be_told_is_refused_and_not_left_out(url):
    option = make_url(url).query
    with pytest.raises(ConfigurationError) as refused:
        Sapwood(url)
    assert refused.value.what.startswith(f"{next(iter(option))} in the URL")
    assert 'SQLAlchemyAdapter("' in refused.value.mend
    assert "secret" not in str(refused.value)
