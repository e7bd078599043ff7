"""The page **Millpond** of Airflow's web UI: runs and books, freshness and lag, the top of a report, dead letters.

| module | owns |
|---|---|
| `places` | which connections it looks through, from Airflow's configuration |
| `facts` | what is read, each part for itself, bounded in number and in time |
| `words` | numbers, times and bars as a person reads them |
| `show` | the HTML, the same for both majors |
| `flask_view` | the view of 2.10 (Flask-AppBuilder) |
| `fastapi_view` | the view of 3.x (an application mounted in the API server) |

Nothing of it writes, and nothing is loaded before somebody opens it: the plugin is read by every process of Airflow.
"""
