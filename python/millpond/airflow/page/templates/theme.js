(function(){var r=document.documentElement,p=null;try{if(window.parent!==window)p=window.parent.document.documentElement}catch(e){}
function f(){var t="";try{t=p&&p.classList.contains("dark")?"dark":p&&p.classList.contains("light")?"light":localStorage.getItem("theme")}catch(e){}
if(t==="dark"||t==="light")r.dataset.theme=t;else delete r.dataset.theme}
f();if(p)new MutationObserver(f).observe(p,{attributes:true,attributeFilter:["class"]})})();
