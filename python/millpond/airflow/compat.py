"""The names that moved between Airflow 2.10 and 3.x, from wherever the installed one keeps them.

Owns every import of Airflow in this package. Refuses to hold behaviour: what differs in meaning is handled where it
matters.
"""

try:
    from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException
except ImportError:
    from airflow.exceptions import AirflowFailException, AirflowNotFoundException

try:
    from airflow.sdk import DAG, BaseOperator, Param
except ImportError:
    from airflow import DAG
    from airflow.models.baseoperator import BaseOperator
    from airflow.models.param import Param

try:
    from airflow.sdk import BaseHook
except ImportError:
    from airflow.hooks.base import BaseHook

get_connection = BaseHook.get_connection

__all__ = ["DAG", "AirflowFailException", "AirflowNotFoundException", "BaseOperator", "Param", "get_connection"]
